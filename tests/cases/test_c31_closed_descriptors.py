"""C31: a program that closes all descriptors; what it opens then is its own, and the profile is written all the
same."""

import pytest

import harness
import pprof


def test_closefrom(out, tmp_path):
    """Not one byte of the program's own files and pipes is read or written."""
    plain = harness.run([harness.program("closer"), tmp_path / "own"])
    r = harness.run([harness.program("closer"), tmp_path / "own"], profile=out)
    assert r.same == plain.same == (0, b"first own 3\n", b"")
    p = pprof.valid(out)
    assert p.cum()["work_before_close"] == pytest.approx(300e6, rel=0.1)
    assert p.cum()["work_after_close"] == pytest.approx(600e6, rel=0.1)
    assert list(out.parent.iterdir()) == [out]


def test_closed_and_killed(out):
    """The socket's end was not the program's end; that comes later, and is noticed."""
    code = ("import os, time\n"
            "os.closerange(3, 4096)\n"
            "while time.process_time() < 0.7: sum(range(100000))\n"
            "print('worked', flush=True)\n"
            "while True: sum(range(100000))\n")
    with harness.Program([harness.PYTHON, "-c", code], profile=out) as app:
        app.wait_output("worked")
        app.kill()
    assert pprof.valid(out).ns > 0.4e9


def test_closed_before_a_fork(out):
    """The child cannot use the descriptors either; its own time must not be lost, nor may it harm."""
    code = ("import os, sys\n"
            "os.closerange(3, 4096)\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    sum(i * i for i in range(5000000))\n"
            "    os._exit(4)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n")
    with harness.Program([harness.PYTHON, "-c", code], profile=out) as app:
        r = app.wait(60)
    assert r.same == (4, b"", b"")
    pprof.valid(out)
    children = harness.wait_until(lambda: [f for f in out.parent.glob("*.pb.gz") if f != out], 10)
    assert children and pprof.valid(children[0]).ns > 0.1e9
