"""C42: Ctrl-C, a terminal that hangs up, signals to the process group, job control: the collector is in a session of its
own, and the file is written."""

import os
import signal
import time

import harness
import pprof
from endings import WORKED, Terminal, assert_worked, ending

import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda s: s.name)
def test_process_group_that_is_killed(out, number):
    """As a shell, a supervisor or a closing terminal does it: the collector is in no group of the program's."""
    with harness.Program(["/bin/sh", "-c", '"$@" & wait', "sh", *ending("linger")], profile=out) as app:
        app.wait_output("done")
        os.killpg(app.pid, number)
        app.wait(20)
    found = harness.wait_until(
        lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()[WORKED] > 0], 10)
    assert found, f"none of {list(out.parent.iterdir())} has the work"
    assert_worked(pprof.valid(found[0]))


@pytest.mark.parametrize("how", ["environment", "record"])
def test_ctrl_c(out, setting, how):
    """It reaches whoever is in the foreground, once: the program decides, and record tells its end."""
    by_record = how == "record"
    argv = [*setting.record(out), *ending("linger")] if by_record else ending("linger")
    with Terminal(argv, profile=None if by_record else out) as t:
        t.wait_said(b"done")
        t.type(b"\x03")
        r = harness.wait_until(lambda: (t.read(), t.app.poll())[1], 20)
        assert r and r.status == -signal.SIGINT
    assert_worked(pprof.valid(out))


def test_terminal_hangs_up(out):
    with Terminal(ending("linger"), profile=out) as t:
        t.wait_said(b"done")
        t.hang_up()
        assert t.app.wait(20).status == -signal.SIGHUP
    assert_worked(pprof.valid(out))


KEYBOARD = """
import sys
def spin_python():
    n = 0
    while n < 10**10: n += 1
print('ready', flush=True)
try: spin_python()
except KeyboardInterrupt: print('interrupted', flush=True); raise
"""


def test_keyboard_interrupt(out):
    """CPython sets its handler when it starts: only if nobody has set one before."""
    with harness.Program([harness.PYTHON, "-c", KEYBOARD], profile=out) as app:
        app.wait_output("ready")
        time.sleep(0.3)
        app.signal(signal.SIGINT)
        r = app.wait(20)
    assert (r.status, r.out, harness.lines(r.err)[-1]) == (-signal.SIGINT, b"ready\ninterrupted\n", "KeyboardInterrupt")
    assert pprof.valid(out).ns > 0.1e9


def test_job_control(out, setting):
    """Ctrl-Z stops both, fg goes on, in a shell with job control."""
    argv = " ".join(f"'{a}'" for a in [*setting.record(out), harness.program("split"), "1", "1500"])
    with Terminal(["/bin/bash", "--norc", "--noprofile", "-i"], env={"PS1": "prompt> ", **setting.environment}) as t:
        t.wait_said(b"prompt> ")
        t.type(argv.encode() + b"\n")
        assert harness.wait_until(splitters, 20), t.said
        time.sleep(0.3)
        t.type(b"\x1a")
        t.wait_said(b"Stopped")
        assert [p.state for p in splitters()] == ["T"]
        t.type(b"fg\n")
        t.wait_said(b'"rusage"')
        t.type(b"echo status=$?\n")
        t.wait_said(b"status=0")
        t.type(b"exit\n")
        assert harness.wait_until(lambda: (t.read(), t.app.poll())[1], 20)
    assert pprof.valid(out).ns == pytest.approx(1.5e9, rel=0.1)


def splitters():
    """The program that the shell's job is."""
    return [p for p in harness.processes() if p.exe == harness.program("split")
            and p.environment.get(harness.MARK) == os.environ[harness.MARK]]
