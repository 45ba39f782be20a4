"""C25: a program whose malloc traps when it is entered by a signal handler, or again by the thread that is in it."""

import signal

import pytest

import harness
import pprof
from whole import assert_whole

pytestmark = pytest.mark.measures


def test_no_tick_allocates(out):
    argv = [harness.program("own_malloc"), "300"]
    plain = harness.run(argv)
    r = harness.run(argv, profile=out)
    assert r.same == plain.same == (0, b"done\n", b"")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
    assert p.cum()["work_in_malloc"] > 0.2 * p.ns  # ticks did come there
    assert_whole(p)


def test_the_trap_is_one(out):
    """Under a profile, too."""
    argv = [harness.program("own_malloc"), "10", "planted"]
    assert harness.run(argv).status == harness.run(argv, profile=out).status == -signal.SIGILL
