"""C18: a signal breaks off poll, select, epoll_wait and the like whatever SA_RESTART says; the program must not notice.

The clocks of today's kernels deliver their signals only where a thread returns to the program, so that few ticks, or
none, break off a wait. Other kernels' and perf's may come at any moment: the program sends its threads such signals.
"""

import os

import harness
import pprof

SECONDS = 30 if os.environ.get("STILE_TEST_LONG") else 2


def test_no_wait_is_broken_off(out):
    plain = harness.run([harness.program("poller")])
    r = harness.run([harness.program("poller")], profile=out)
    assert r.same == plain.same
    assert r.out == b"poll 0\nppoll 0\nselect 0\nepoll_wait 0\nnanosleep 0\npselect 0\n"
    assert pprof.valid(out).ns > 0.1e9


def test_no_wait_of_any_kind(out, setting):
    """Timers alone, which do up to the kernel's tick, never come in the middle of a wait; perf's signals may."""
    for pelt in ("no", "pelt") if setting.hz > harness.TICK_HZ else ("no",):
        r = harness.run([harness.program("waits"), SECONDS, pelt], profile=out)
        assert r.status == 0, r
        lines = harness.lines(r.out)
        assert len(lines) == 33
        assert [line for line in lines if not line.endswith(": waited, 0 broken off, 0 wrong")] == []
        assert r.err == b""
        assert pprof.valid(out).cum()["work_beside_waits"] > 0.05e9 * SECONDS
