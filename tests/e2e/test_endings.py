"""However a program ends: it ends as it would have, and its profile is a valid file."""

import ctypes
import fcntl
import os
import pty
import signal
import socket
import stat
import subprocess
import termios
import time

import pytest

import harness
import pprof

WORK_NS = 300 * 10**6
WORKED = "work_before_end"
PR_SET_CHILD_SUBREAPER = 36


def ending(*way):
    return [harness.program("ending"), "300", *way]


def assert_worked(p, function=WORKED, ns=WORK_NS):
    """The work is there, give or take the periods at its two ends."""
    assert abs(p.cum()[function] - ns) <= max(0.1 * ns, 3 * p.pb.period), (p.cum()[function], p.cum())


def same_as_plain(argv, out, **options):
    """Runs it without and with a profile, which must make no difference that the program or its user can see."""
    plain = harness.run(argv, **options)
    profiled = harness.run(argv, profile=out, **options)
    assert profiled.same == plain.same
    return profiled


RETURNING = [("return",), ("threads-return",), ("threads",), ("exit",), ("_exit",), ("quick_exit",)]
DYING = [("abort",), ("segv",)] + [("raise", str(int(s))) for s in (
    signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM,
    signal.SIGVTALRM, signal.SIGXCPU, signal.SIGSYS, signal.SIGTRAP)]


@pytest.mark.parametrize("way", RETURNING, ids=" ".join)
def test_program_that_ends_itself(out, way):
    """The root of the tree waits for its file: it is there when the program is gone."""
    r = same_as_plain(ending(*way), out)
    assert r.status == 7 and r.out == b"working\ndone\n"
    assert out.exists(), "the file was not waited for"
    assert r.seconds < 10
    p = pprof.valid(out)
    assert_worked(p)
    if "threads" in way[0]:
        assert p.cum()["work_in_thread"] > WORK_NS / 2


def test_pthread_exit_of_the_main_thread(out):
    r = same_as_plain(ending("pthread_exit"), out)
    assert r.status == 0
    assert_worked(pprof.valid(out))


def test_raw_exit_group(out):
    """Past the C library nobody can wait, but nothing is lost."""
    r = same_as_plain(ending("raw_exit_group"), out)
    assert r.status == 7
    assert_worked(pprof.valid(out))


@pytest.mark.parametrize("way", DYING, ids=" ".join)
def test_program_that_dies(out, way):
    r = same_as_plain(ending(*way), out)
    assert r.status < 0 and r.seconds < 10
    assert_worked(pprof.valid(out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT],
                         ids=lambda s: s.name)
def test_program_that_is_killed(out, number):
    """In the midst of its work, with threads."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        time.sleep(0.5)
        app.signal(number)
        r = app.wait(20)
    assert r.status == -number and r.err == b""
    p = pprof.valid(out)
    assert_worked(p)
    assert p.cum()["work_until_killed"] > 0.1e9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda s: s.name)
def test_process_group_that_is_killed(out, number):
    """As a shell, a supervisor or a closing terminal does it: the collector is in no group of the program's."""
    with harness.Program(["/bin/sh", "-c", '"$@" & wait', "sh", *ending("linger")], profile=out) as app:
        app.wait_output("done")
        os.killpg(app.pid, number)
        app.wait(20)
    files = harness.wait_until(lambda: sorted(out.parent.glob("*.pb.gz")), 10)
    found = harness.wait_until(
        lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()[WORKED] > 0], 10)
    assert found, f"none of {files} has the work"
    assert_worked(pprof.valid(found[0]))


def test_short_life(out):
    """Gone before anybody could ask /proc for its name: the profile has it all the same."""
    for _ in range(5):
        assert harness.run([harness.program("ending"), "50", "raise", "9"], profile=out).status == -signal.SIGKILL
        p = pprof.valid(out)
        assert {s.labels["thread"] for s in p.samples} == {"ending"}
        out.unlink()


def test_killed_while_it_sleeps(out):
    with harness.Program(ending("sleep"), profile=out) as app:
        app.wait_output("done")
        app.signal(signal.SIGKILL)
        assert app.wait(20).status == -signal.SIGKILL
    assert_worked(pprof.valid(out))


# --- Programs that run in a shell, a terminal, a container


def profiled_command(out, argv):
    return ["env", *harness.assignments(harness.profile_environment(out)), *argv]


def test_head_closes_the_pipe(out):
    script = '"$@" | head -n 3; echo "${PIPESTATUS[@]}"'
    plain = harness.run(["/bin/bash", "-c", script, "bash", *ending("chatter")])
    profiled = harness.run(["/bin/bash", "-c", script, "bash", *profiled_command(out, ending("chatter"))])
    assert profiled.same == plain.same
    assert lines_of(profiled)[-1] == "141 0"
    assert_worked(pprof.valid(out))


def lines_of(result):
    return harness.lines(result.out)


@pytest.mark.parametrize("way", [("exit",), ("_exit",), ("raise", "9"), ("raw_exit_group",)], ids=" ".join)
def test_command_substitution_returns(out, way):
    """Nobody but the program holds the pipe that the shell reads to its end."""
    script = 'x=$("$@" 2>&1); s=$?; echo "$s:$x"'
    plain = harness.run(["/bin/bash", "-c", script, "bash", *ending(*way)])
    profiled = harness.run(["/bin/bash", "-c", script, "bash", *profiled_command(out, ending(*way))])
    assert (profiled.status, profiled.out) == (plain.status, plain.out)
    assert profiled.seconds < plain.seconds + 5
    assert_worked(pprof.valid(out))


def test_command_substitution_does_not_wait_for_the_collector(out, mark):
    """Even one that stands still: the pipe ends with the program."""
    script = 'x=$("$@" 2>&1); echo "$?:$x"'
    argv = ["/bin/bash", "-c", script, "bash",
            *profiled_command(out, [harness.program("ending"), "1500", "raise", "9"])]
    with harness.Program(argv) as shell:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        try:
            r = shell.wait(30)
        finally:
            os.kill(collector.pid, signal.SIGCONT)
    assert (r.status, r.out) == (0, b"137:working\ndone\n")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(1500e6, rel=0.1), "what found no room is counted all the same"


def test_collector_has_nothing_of_the_program(out, mark):
    """No descriptor, no session, no parent, no place, and none of the variables that would profile it."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with harness.Program(ending("linger"), profile=out, stdout=subprocess.PIPE, pass_fds=[writer],
                         cwd=out.parent) as app:
        collector = harness.wait_for_collector(mark)
        os.close(writer)
        targets = {}
        for fd in os.listdir(f"/proc/{collector.pid}/fd"):
            targets[int(fd)] = os.readlink(f"/proc/{collector.pid}/fd/{fd}")
        assert [targets[i] for i in range(3)] == ["/dev/null"] * 3
        pipes = {os.readlink(f"/proc/self/fd/{fd}") for fd in (reader, app.process.stdout.fileno())}
        assert not pipes & set(targets.values()), targets
        assert str(app.err_path) not in targets.values()
        assert os.getsid(collector.pid) != os.getsid(app.pid)
        assert os.getpgid(collector.pid) != os.getpgid(app.pid)
        status = harness.lines(harness._read(f"/proc/{collector.pid}/status"))
        assert f"PPid:\t{app.pid}" not in status
        assert not [k for k in collector.environment if k.startswith("PROFILE") or k == "LD_PRELOAD"]
        assert os.readlink(f"/proc/{collector.pid}/cwd") == "/"
        app.signal(signal.SIGTERM)
        app.process.stdout.close()
        assert app.wait(20).status == -signal.SIGTERM
    os.close(reader)
    pprof.valid(out)


class Terminal:
    """A program that leads a session of its own on a terminal of its own."""

    def __init__(self, argv, **options):
        self.master, slave = pty.openpty()

        def adopt_terminal():
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.app = harness.Program(argv, stdin=slave, stdout=slave, stderr=slave, pass_fds=[slave],
                                   preexec_fn=adopt_terminal, **options)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.said = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.hang_up()
        self.app.__exit__(*exc)

    def hang_up(self):
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def read(self):
        try:
            self.said += os.read(self.master, 65536)
        except OSError:
            pass
        return self.said

    def wait_said(self, text, timeout=30):
        found = harness.wait_until(lambda: text in self.read(), timeout)
        assert found, f"{text!r} is not in {self.said[-2000:]!r}"

    def type(self, keys):
        os.write(self.master, keys)


def test_ctrl_c(out):
    with Terminal(ending("linger"), profile=out) as t:
        t.wait_said(b"done")
        t.type(b"\x03")
        assert t.app.wait(20).status == -signal.SIGINT
    assert_worked(pprof.valid(out))


def test_terminal_hangs_up(out):
    with Terminal(ending("linger"), profile=out) as t:
        t.wait_said(b"done")
        t.hang_up()
        assert t.app.wait(20).status == -signal.SIGHUP
    assert_worked(pprof.valid(out))


def test_keyboard_interrupt(out):
    """CPython sets its handler when it starts: only if nobody has set one before."""
    code = ("import sys\n"
            "def spin_python():\n"
            "    n = 0\n"
            "    while n < 10**10: n += 1\n"
            "print('ready', flush=True)\n"
            "try: spin_python()\n"
            "except KeyboardInterrupt: print('interrupted', flush=True); raise\n")
    seen = []
    for options in ({}, {"profile": out}):
        with harness.Program([harness.PYTHON, "-c", code], **options) as app:
            app.wait_output("ready")
            time.sleep(0.5)
            app.signal(signal.SIGINT)
            r = app.wait(20)
        seen.append((r.status, r.out, harness.lines(r.err)[-1]))
    assert seen[0] == seen[1] == (-signal.SIGINT, b"ready\ninterrupted\n", "KeyboardInterrupt")
    assert pprof.valid(out).ns > 0.2e9


# --- Exec


def test_exec_of_another_program(out):
    """The last image owns the name; the earlier one keeps what it had."""
    r = same_as_plain(ending("exec", harness.program("waiter")), out)
    assert r.status == 0
    assert_worked(pprof.valid(out), "work_before_waiting", 200 * 10**6)
    pid = pprof.load(out).samples[0].labels["pid"]
    earlier = harness.child_path(out, pid, 1)
    p = pprof.valid(earlier)
    assert_worked(p)
    assert p.main_file == harness.program("ending")
    assert {s.labels["pid"] for s in p.samples} == {pid}
    assert {f.name for f in out.parent.iterdir()} == {out.name, earlier.name}


def test_exec_of_itself_twice(out):
    again = ending("exec", *ending("exec", *ending("_exit")))
    r = same_as_plain(again, out)
    assert r.status == 7 and r.out == b"working\ndone\n" * 3
    last = pprof.valid(out)
    pid = last.samples[0].labels["pid"]
    paths = {out, harness.child_path(out, pid, 1), harness.child_path(out, pid, 2)}
    for path in paths:
        assert_worked(pprof.valid(path))
    assert set(out.parent.iterdir()) == paths


def test_exec_of_an_unprofiled_program(out):
    """A static program, or one without our library, cannot go on; what there was is kept."""
    r = same_as_plain(ending("exec", "/usr/bin/env", "-u", "LD_PRELOAD", "echo", "hello"), out)
    assert r.status == 0 and r.out.endswith(b"hello\n")
    found = harness.wait_until(lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()[WORKED]], 10)
    assert found, list(out.parent.iterdir())
    assert_worked(pprof.valid(found[0]))


def test_exec_that_fails(out):
    r = same_as_plain(ending("failed-exec"), out)
    assert r.status == 7
    p = pprof.valid(out)
    assert_worked(p)
    assert_worked(p, "work_after_failed_exec", 200 * 10**6)
    assert list(out.parent.iterdir()) == [out]


def test_relative_path_and_another_directory(out):
    """The path is resolved at the start, wherever the program goes."""
    code = "import os; os.chdir('/'); sum(i * i for i in range(3000000))"
    r = harness.run([harness.PYTHON, "-c", code], profile=out.name, cwd=out.parent)
    assert r.status == 0 and r.err == b""
    assert pprof.valid(out).ns > 0.05e9


def test_names_expand(out):
    pattern = out.with_name("%e-%p-%t.pb.gz")
    before = int(time.time())
    with harness.Program(ending("exit"), profile=pattern) as app:
        assert app.wait(20).status == 7
        pid = app.pid
    names = [f.name for f in out.parent.iterdir()]
    allowed = [f"ending-{pid}-{t}.pb.gz" for t in range(before, int(time.time()) + 1)]
    assert len(names) == 1 and names[0] in allowed
    assert_worked(pprof.valid(out.with_name(names[0])))


def test_directory(out):
    with harness.Program(ending("exit"), profile=out.parent) as app:
        assert app.wait(20).status == 7
        assert [f.name for f in out.parent.iterdir()] == [f"ending.{app.pid}.pb.gz"]
        assert_worked(pprof.valid(out.with_name(f"ending.{app.pid}.pb.gz")))


def test_uncompressed(out):
    path = out.with_name("out.pb")
    assert harness.run(ending("exit"), profile=path).status == 7
    assert_worked(pprof.valid(path))


def test_an_older_file_is_replaced_at_once(out):
    """Written aside and renamed: whoever reads meanwhile reads the old one."""
    out.write_bytes(b"old")
    inode = out.stat().st_ino
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        assert out.read_bytes() == b"old"
        app.signal(signal.SIGTERM)
        app.wait(20)
    assert harness.wait_until(lambda: out.stat().st_ino != inode, 10)
    assert_worked(pprof.valid(out))
    assert stat.S_ISREG(out.stat().st_mode) and list(out.parent.iterdir()) == [out]


# --- Children that are not the program's


def test_waits_see_no_child(out):
    r = same_as_plain([harness.program("waiter")], out)
    assert r.status == 0
    assert len(lines_of(r)) == 14 and all(" -1 ECHILD" in line for line in lines_of(r)), r
    assert_worked(pprof.valid(out), "work_before_waiting", 200 * 10**6)


def test_waits_of_a_subreaper(out):
    """Orphans become its children, and the collector is one."""
    libc = ctypes.CDLL(None, use_errno=True)

    def become_subreaper():
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    r = same_as_plain([harness.program("waiter")], out, preexec_fn=become_subreaper)
    assert r.status == 0 and all(" -1 ECHILD" in line for line in lines_of(r)), r
    assert_worked(pprof.valid(out), "work_before_waiting", 200 * 10**6)


def test_waits_of_pid_1(out):
    """In a container the program may be pid 1, whose death ends the collector too."""
    unshare = [harness.tool("unshare"), "--pid", "--fork", "--mount-proc"]
    if harness.run([*unshare, "true"]).status != 0:
        pytest.skip("no right to make a pid namespace here")
    waiter = harness.program("waiter")
    plain = harness.run([*unshare, waiter], timeout=60)
    profiled = harness.run([*unshare, *profiled_command(out, [waiter])], timeout=60)
    assert profiled.same == plain.same
    assert all(" -1 ECHILD" in line for line in lines_of(profiled)), profiled
    p = pprof.valid(out)
    assert_worked(p, "work_before_waiting", 200 * 10**6)
    assert {s.labels["pid"] for s in p.samples} == {1}


def test_shell_as_pid_1_waits_for_its_own(out):
    unshare = [harness.tool("unshare"), "--pid", "--fork", "--mount-proc"]
    if harness.run([*unshare, "true"]).status != 0:
        pytest.skip("no right to make a pid namespace here")
    script = "(exit 3) & wait $!; echo $?; wait; echo $?"
    r = harness.run([*unshare, *profiled_command(out, ["/bin/bash", "-c", script])], timeout=60)
    assert (r.status, r.out, r.err) == (0, b"3\n0\n", b"")


# --- A collector in trouble


@pytest.mark.parametrize("way", [("exit",), ("raise", "15")], ids=" ".join)
def test_collector_missing(out, way):
    plain = harness.run(ending(*way))
    r = harness.run(ending(*way), profile=out, env={"PROFILE_COLLECTOR": "/nonexistent/stile"})
    assert (r.status, r.out) == (plain.status, plain.out)
    assert "/nonexistent/stile" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("collector", ["/bin/false", "/bin/true", "/etc/passwd", "/"])
def test_collector_that_is_none(out, collector):
    r = harness.run(ending("exit"), profile=out, env={"PROFILE_COLLECTOR": collector}, timeout=60)
    assert (r.status, r.out) == (7, b"working\ndone\n")
    harness.one_line(r.err)
    assert r.seconds < 20 and list(out.parent.iterdir()) == []


def test_collector_that_never_answers(out, tmp_path):
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    r = harness.run(ending("exit"), profile=out, env={"PROFILE_COLLECTOR": mute}, timeout=60)
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert r.seconds < 30
    harness.one_line(r.err)
    for p in harness.processes():
        if p.argv == ["sleep", "60"] and p.environment.get(harness.MARK) == os.environ[harness.MARK]:
            harness.end_process(p)


def test_collector_killed(out, mark):
    with harness.Program([harness.program("split"), "2", "2000"], profile=out) as app:
        harness.end_process(harness.wait_for_collector(mark))
        r = app.wait(60)
    assert r.status == 0 and r.out.startswith(b"{")
    assert r.seconds < 20
    harness.one_line(r.err)
    for f in out.parent.glob("*.pb.gz"):
        pprof.valid(f)


def test_collector_stopped(out, mark):
    """The program's end is held up for a while and no longer; the profile comes when the collector goes on."""
    with harness.Program([harness.program("split"), "2", "1000"], profile=out) as app:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        try:
            r = app.wait(60)
        finally:
            os.kill(collector.pid, signal.SIGCONT)
    assert r.status == 0 and r.out.startswith(b"{")
    assert r.seconds < 20
    harness.one_line(r.err)
    p = pprof.valid(out)
    assert p.ns > 0.5e9


def test_collector_stopped_for_a_moment(out, mark):
    """The rings hold what comes meanwhile."""
    with harness.Program([harness.program("split"), "2", "2000"], profile=out) as app:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(collector.pid, signal.SIGCONT)
        r = app.wait(60)
    assert (r.status, r.err) == (0, b"")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03)


def test_strangers_at_the_collector(out, mark):
    """Whoever finds its address can say what he likes: the profile is written all the same."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        harness.wait_for_collector(mark)
        with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
            names = {line.split()[7] for line in table if "@" in line and "stile" in line.lower()}
        for name in names:
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_UNIX, kind) as s:
                    s.settimeout(1)
                    try:
                        s.connect("\0" + name[1:])
                        s.send(os.urandom(3000))
                        s.send(b"")
                    except OSError:
                        pass
        app.signal(signal.SIGTERM)
        assert app.wait(20).status == -signal.SIGTERM
    assert_worked(pprof.valid(out))


@pytest.mark.parametrize("microseconds", [50, 200, 500, 1000, 2000, 3000])
def test_exit_in_a_handler_while_the_file_is_waited_for(out, microseconds):
    """Who interrupts the wait and ends the program must not wait for himself."""
    r = harness.run([harness.program("late_signal"), str(microseconds)], profile=out, timeout=60)
    assert r.status in (0, 3) and r.seconds < 10
    pprof.valid(out)
