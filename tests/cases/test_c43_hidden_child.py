"""C43: the program is pid 1 or a subreaper, and somebody reads its output to the end: the collector is hidden from its waits, and
holds nothing of its."""

import ctypes
import os
import signal
import subprocess

import pytest

import harness
import pprof
from endings import assert_kept, ending, profiled_command, same_as_plain

PR_SET_CHILD_SUBREAPER = 36
WAITER_NS = 200 * 10**6


def test_waits_see_no_child(out):
    r = same_as_plain([harness.program("waiter")], out)
    assert r.status == 0
    assert len(harness.lines(r.out)) == 14 and all(" -1 ECHILD" in line for line in harness.lines(r.out)), r
    assert_kept(pprof.valid(out), "work_before_waiting", WAITER_NS)


def test_waits_of_a_subreaper(out):
    """Orphans become its children, and the collector is one."""
    libc = ctypes.CDLL(None, use_errno=True)

    def become_subreaper():
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    r = same_as_plain([harness.program("waiter")], out, preexec_fn=become_subreaper)
    assert r.status == 0 and all(" -1 ECHILD" in line for line in harness.lines(r.out)), r
    assert_kept(pprof.valid(out), "work_before_waiting", WAITER_NS)


def test_waits_of_pid_1(out):
    """In a container the program may be pid 1, whose death ends the collector too."""
    unshare = [harness.tool("unshare"), "--pid", "--fork", "--mount-proc"]
    if harness.run([*unshare, "true"]).status != 0:
        pytest.skip("no right to make a pid namespace here")
    waiter = harness.program("waiter")
    plain = harness.run([*unshare, waiter], timeout=60)
    profiled = harness.run([*unshare, *profiled_command(out, [waiter])], timeout=60)
    assert profiled.same == plain.same
    assert all(" -1 ECHILD" in line for line in harness.lines(profiled.out)), profiled
    p = pprof.valid(out)
    assert_kept(p, "work_before_waiting", WAITER_NS)
    assert {s.labels["pid"] for s in p.samples} == {1}


def test_shell_as_pid_1_waits_for_its_own(out):
    unshare = [harness.tool("unshare"), "--pid", "--fork", "--mount-proc"]
    if harness.run([*unshare, "true"]).status != 0:
        pytest.skip("no right to make a pid namespace here")
    script = "(exit 3) & wait $!; echo $?; wait; echo $?"
    r = harness.run([*unshare, *profiled_command(out, ["/bin/bash", "-c", script])], timeout=60)
    assert (r.status, r.out, r.err) == (0, b"3\n0\n", b"")


@pytest.mark.parametrize("way", [("exit",), ("_exit",), ("raise", "9"), ("raw_exit_group",)], ids=" ".join)
def test_command_substitution_returns(out, way):
    """Nobody but the program holds the pipe that the shell reads to its end."""
    script = 'x=$("$@" 2>&1); s=$?; echo "$s:$x"'
    plain = harness.run(["/bin/bash", "-c", script, "bash", *ending(*way)])
    profiled = harness.run(["/bin/bash", "-c", script, "bash", *profiled_command(out, ending(*way))])
    assert (profiled.status, profiled.out) == (plain.status, plain.out)
    assert profiled.seconds < plain.seconds + 5
    assert_kept(pprof.valid(out))


def test_command_substitution_does_not_wait_for_the_collector(out, mark):
    """Even one that stands still: the pipe ends with the program."""
    script = 'x=$("$@" 2>&1); echo "$?:$x"'
    argv = ["/bin/bash", "-c", script, "bash",
            *profiled_command(out, [harness.program("ending"), "500", "raise", "9"])]
    with harness.Program(argv) as shell:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        try:
            r = shell.wait(30)
        finally:
            os.kill(collector.pid, signal.SIGCONT)
    assert (r.status, r.out) == (0, b"137:working\ndone\n")
    assert pprof.valid(out).ns >= 0.9 * 500e6, "what found no room is counted all the same"


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
