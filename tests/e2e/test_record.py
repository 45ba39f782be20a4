"""`stile record` stands between a user and a program, and neither should feel it."""

import os
import re
import signal
import time

import pytest

import harness
import pprof
from endings import Terminal, assert_worked, ending


def command(out, argv, *options):
    return [harness.STILE, "record", "-o", out, *options, "--", *argv]


def test_input_and_output_pass(out):
    data = bytes(range(256)) * 4000
    r = harness.run(command(out, ["cat"]), stdin=data)
    assert r.status == 0 and r.out == data
    pprof.valid(out)


def test_without_the_two_dashes(out):
    """Options after the command are the command's."""
    r = harness.run([harness.STILE, "record", "-o", out, "echo", "-o", "--help", "-F"])
    assert (r.status, r.out) == (0, b"-o --help -F\n")


@pytest.mark.parametrize("status", [0, 1, 2, 7, 126, 127, 128, 255])
def test_exit_status(out, status):
    assert harness.run(command(out, ["/bin/sh", "-c", f"exit {status}"])).status == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT,
                                    signal.SIGPIPE, signal.SIGHUP], ids=lambda s: s.name)
def test_death_by_signal_is_passed_on(out, number):
    r = harness.run(command(out, ending("raise", str(int(number)))))
    assert r.status == -number
    assert_worked(pprof.valid(out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1],
                         ids=lambda s: s.name)
def test_signal_reaches_the_program(out, number):
    """Sent to record alone, by kill(1); a terminal would have sent it to both."""
    with harness.Program(command(out, ending("linger"))) as app:
        app.wait_output("done")
        app.signal(number)
        assert app.wait(20).status == -number
    assert_worked(pprof.valid(out))


def test_program_that_handles_a_signal(out):
    script = "trap 'echo caught; exit 42' TERM; echo ready; i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done"
    with harness.Program(command(out, ["/bin/sh", "-c", script])) as app:
        app.wait_output("ready")
        app.signal(signal.SIGTERM)
        r = app.wait(30)
    assert (r.status, r.out) == (42, b"ready\ncaught\n")
    pprof.valid(out)


def test_rate(out):
    r = harness.run(command(out, [harness.program("split"), "1", "1000"], "-F", str(harness.TICK_HZ)))
    assert r.status == 0
    p = pprof.valid(out)
    assert p.count == pytest.approx(harness.TICK_HZ, rel=0.15)
    assert p.ns == pytest.approx(1e9, rel=0.05)


def test_same_profile_as_by_environment(out):
    r = harness.run(command(out, [harness.program("split"), "2", "2000"]))
    p = pprof.valid(out)
    assert r.status == 0 and r.out.startswith(b"{")
    assert p.main_file == harness.program("split")
    assert p.ns == pytest.approx(2e9, rel=0.03)
    assert pprof.bracketed_share([p]) < 0.005
    command_lines = [c for c in p.comments if "split 2 2000" in c]
    assert command_lines and "record" not in command_lines[0], p.comments


def test_children_too(out):
    r = harness.run(command(out, ["/bin/sh", "-c", '"$@"; exit 5', "sh", *ending("exit")]))
    assert r.status == 5
    files = [pprof.valid(f) for f in out.parent.iterdir()]
    assert sum(p.cum()["work_before_end"] for p in files) == pytest.approx(300e6, rel=0.1)


def test_file_is_there_when_it_returns(out):
    """For every end of the program, the signals among them: `stile record` waits where the kernel does not."""
    for way in (("exit",), ("raise", "9"), ("raw_exit_group",)):
        harness.run(command(out, ending(*way)))
        assert out.exists(), way
        out.unlink()


def test_returns_with_the_program(out):
    """Not with what it leaves in the background."""
    script = '"$@" >/dev/null 2>&1 & sleep 0.5; echo started'
    with harness.Program(command(out, ["/bin/sh", "-c", script, "sh", *ending("sleep")])) as app:
        r = app.wait(60)
        assert (r.status, r.out) == (0, b"started\n")
        assert r.seconds < 15
        os.killpg(app.pid, signal.SIGTERM)  # the sleeper


# --- What it says


def test_summary(out):
    """Samples, CPU time, duration, the file and how to view it; on stderr, after the program's own."""
    r = harness.run(command(out, ["/bin/sh", "-c", 'echo mine >&2; exec "$@"', "sh", harness.program("split"), "2",
                                  "1500"]))
    p = pprof.valid(out)
    text = r.err.decode()
    assert text.startswith("mine\n")
    flat = text.replace(",", "").replace("'", "")
    # The shell may have had a tick before its exec, in a file of its own.
    count = sum(pprof.load(path).count for path in out.parent.glob("*.pb.gz"))
    assert p.count <= count <= p.count + 2
    assert re.search(rf"\b{count}\b[^\n]*samples|samples[^\n]*\b{count}\b", flat), (count, text)
    assert re.search(r"1\.[45]\d* ?s|1[45]\d\d ?ms", text), text
    assert "CPU" in text or "cpu" in text
    assert str(out) in text
    assert "pprof" in text or "stile top" in text
    assert "\r" not in text and "\x1b" not in text


def test_summary_names_the_reasons(out):
    """No bracket, no reason; the word for it is in the summary all the same, or nothing is."""
    r = harness.run(command(out, [harness.program("split"), "1", "500"]))
    p = pprof.valid(out)
    for reason, ns in pprof.bracketed_ns([p]).items():
        assert reason.strip("[]") in r.err.decode(), (reason, ns)


def comments_said(text):
    """By file: what stands behind the line that names it."""
    said = {}
    for line in text.splitlines():
        if line.startswith("stile: comments of "):
            comments = said.setdefault(line.removeprefix("stile: comments of ").removesuffix(":"), [])
        elif said:
            comments.append(line)
    return said


def without_times(text):
    """Nor lines that are there only where there was time of their kind."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"^stile: \[.*\n", "", text, flags=re.M))


def test_verbose(out):
    """The same as without it, and then the file's comments as they are. A file of an earlier run is none of this one."""
    out.with_name("out.7.pb.gz").write_bytes(b"of an earlier run")
    os.utime(out.with_name("out.7.pb.gz"), (1, 1))
    argv = [harness.program("split"), "1", "500"]
    plain = harness.run(command(out, argv)).err.decode()
    assert not comments_said(plain)
    r = harness.run(command(out, argv, "--verbose"))
    text = r.err.decode()
    assert r.status == 0 and r.out.startswith(b"{")
    assert without_times(text).startswith(without_times(plain)), (plain, text)
    assert comments_said(text) == {str(out): pprof.valid(out).comments}


@pytest.mark.parametrize("name", ["out.pb.gz", "%e-%p.pb"])
def test_verbose_of_several_files(out, name):
    """Each file's, the first one's first."""
    script = '"$@" || exit 1; "$@"; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'
    r = harness.run(command(out.with_name(name), ["/bin/sh", "-c", script, "sh", harness.program("split"), "1", "300"],
                            "-v", "--no-merge"))
    assert r.status == 0, r
    said = comments_said(r.err.decode())
    files = [str(f) for f in out.parent.iterdir()]
    assert len(files) == 3 and sorted(said) == sorted(files)
    assert {f: pprof.valid(f).comments for f in files} == said
    first = re.search(r"wrote (\S+)", r.err.decode()).group(1)
    assert next(iter(said)) == (first if "%" not in name else max(files, key=lambda f: "/sh-" in f or "/dash-" in f))


def test_verbose_of_numbered_files(out):
    r = harness.run(command(out, [harness.program("split"), "1", "700"], "-v", "--interval", "100ms"))
    said = comments_said(r.err.decode())
    assert [f.rpartition("/")[2] for f in said] == [f"out.{i + 1}.pb.gz" for i in range(len(said))]
    assert {str(f) for f in out.parent.iterdir()} == set(said) and len(said) > 3


def test_nothing_on_stdout(out):
    assert harness.run(command(out, ["true"])).out == b""


def test_status_line_on_a_terminal_only(out):
    argv = command(out, [harness.program("split"), "1", "3500"])
    r = harness.run(argv)
    assert b"\r" not in r.err
    with Terminal(argv) as t:
        assert harness.wait_until(lambda: t.read() and t.app.poll(), 60).status == 0
        harness.wait_until(lambda: b"pprof" in t.read(), 2)
    bare = t.said.replace(b"\r\n", b"\n")
    assert b"\r" in bare, bare


def test_no_status_line_in_the_program_s_output(out, tmp_path):
    """stderr is a terminal, stdout is not."""
    with open(tmp_path / "stdout", "wb") as stdout:
        with Terminal(["/bin/sh", "-c", f'exec "$@" >{tmp_path}/stdout', "sh",
                       *map(str, command(out, [harness.program("split"), "1", "1500"]))]) as t:
            assert harness.wait_until(lambda: (t.read(), t.app.poll())[1], 60).status == 0
        assert stdout.tell() == 0
    assert (tmp_path / "stdout").read_bytes().startswith(b"{")
    assert (tmp_path / "stdout").read_bytes().endswith(b"}\n")


# --- Terminals and trouble


def test_program_reads_the_terminal(out):
    """As an editor or a shell: the program is in the foreground."""
    with Terminal(command(out, ["/bin/sh", "-c", "echo ready; read x; echo got $x; stty -a >/dev/null"])) as t:
        t.wait_said(b"ready")
        t.type(b"hello\n")
        t.wait_said(b"got hello")
        assert harness.wait_until(lambda: (t.read(), t.app.poll())[1], 20).status == 0


def test_kill_of_record_harms_nothing(out, tmp_path):
    """The program goes on, and so does its profile."""
    done = tmp_path / "done"
    script = '"$1" 2 2000 >"$2.part"; mv "$2.part" "$2"'
    argv = command(out, ["/bin/sh", "-c", script, "sh", harness.program("split"), str(done)])
    with harness.Program(argv) as app:
        harness.wait_until((tmp_path / "done.part").exists, 20)
        time.sleep(0.3)
        app.signal(signal.SIGKILL)
        assert app.wait(20).status == -signal.SIGKILL
        assert harness.wait_until(done.exists, 30)
        assert done.read_text().startswith("{")
        found = harness.wait_until(
            lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()["spin_a"] > 0], 10)
    assert found
    assert pprof.valid(found[0]).ns == pytest.approx(2e9, rel=0.03)


def test_stop_of_record_harms_nothing(out, tmp_path):
    done = tmp_path / "done"
    script = '"$1" 2 2000 >"$2.part"; mv "$2.part" "$2"'
    argv = command(out, ["/bin/sh", "-c", script, "sh", harness.program("split"), str(done)])
    with harness.Program(argv) as app:
        harness.wait_until((tmp_path / "done.part").exists, 20)
        app.signal(signal.SIGSTOP)
        assert harness.wait_until(done.exists, 30), "the program stands still with record"
        app.signal(signal.SIGCONT)
        assert app.wait(20).status == 0
    assert sum(pprof.valid(f).ns for f in out.parent.glob("*.pb.gz")) == pytest.approx(2e9, rel=0.03)


def test_static_program(out):
    """Nothing can be preloaded there: it runs, and record says that there is no profile."""
    source = out.with_name("static.c")
    source.write_text("int main(void) { return 5; }\n")
    binary = out.with_name("static")
    assert harness.run([harness.tool("gcc"), "-static", "-o", binary, source]).status == 0
    r = harness.run(command(out, [binary]))
    assert r.status == 5 and r.err
    if out.exists():
        pprof.valid(out)
