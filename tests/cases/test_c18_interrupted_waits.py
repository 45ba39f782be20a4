"""C18: a signal breaks off poll, select, epoll_wait and the like whatever SA_RESTART says; the program must not notice.

The clocks of today's kernels deliver their signals only where a thread returns to the program, so that few ticks, or
none, break off a wait. Other kernels' and perf's may come at any moment: the program sends its threads such signals.
"""

import os

import pytest

import harness
import pprof

SECONDS = 60 if os.environ.get("STILE_TEST_LONG") else 2


def test_no_wait_is_broken_off(out):
    plain = harness.run([harness.program("poller")])
    r = harness.run([harness.program("poller")], profile=out, hz=harness.TICK_HZ)
    assert r.same == plain.same
    assert r.out == b"poll 0\nppoll 0\nselect 0\nepoll_wait 0\nnanosleep 0\npselect 0\n"
    assert pprof.valid(out).ns > 0.1e9


@pytest.mark.parametrize("hz", [1000, 10000])
@pytest.mark.parametrize("pelt", ["no", "pelt"])
def test_no_wait_of_any_kind(out, hz, pelt):
    r = harness.run([harness.program("waits"), SECONDS, pelt], profile=out, hz=hz)
    assert r.status == 0, r
    lines = harness.lines(r.out)
    assert len(lines) == 33
    assert [line for line in lines if not line.endswith(": waited, 0 broken off, 0 wrong")] == []
    assert r.err == b""
    assert pprof.valid(out).cum()["work_beside_waits"] > 0.05e9 * SECONDS


def test_without_a_profile(out):
    r = harness.run([harness.program("waits"), 1])
    assert [line for line in harness.lines(r.out) if not line.endswith(": waited, 0 broken off, 0 wrong")] == []
    assert list(out.parent.iterdir()) == []
