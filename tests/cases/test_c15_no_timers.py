"""C15: each timer holds a signal in reserve, and the user may have none: there is another way, down to none at all."""

import json
import re
import resource

import pytest

import harness
import pprof
from whole import FULL

pytestmark = pytest.mark.measures

FREE = 0.005  # what may stand under a bracketed root where no test forces it


def held():
    """Signals that the user's processes hold now: the limit is for all of them."""
    with open("/proc/self/status", encoding="ascii") as f:
        return int(re.search(r"SigQ:\s+(\d+)/", f.read()).group(1))


def usage(out, signals, threads, ms, clock=None, hz=None):
    """Runs the usage program with so many signals to be had: how it ended, and its profile, whose sum is right."""
    limits = [signals + (held() if signals != 0 else 0)] * 2

    def limit():
        resource.setrlimit(resource.RLIMIT_SIGPENDING, limits)

    r = harness.run([harness.program("usage"), "threads", threads, ms], profile=out, hz=hz, preexec_fn=limit,
                    env={"PROFILE_CLOCK": clock} if clock else {})
    p, told = pprof.valid(out), json.loads(r.out)
    assert r.status == 0 and p.ns == pytest.approx(told["process"], rel=0.01), (p.ns, told["process"], p.comments)
    return r, p


def clock_of(p):
    return next(c for c in p.comments if c.startswith("clock: "))


def test_perf_alone(out):
    """With perf's clock there is no need of a timer."""
    r, p = usage(out, 10, 40, 30)
    assert r.err == b""
    assert re.search(r"perf cpu-clock for \d+ threads", clock_of(p)), clock_of(p)
    assert "no timer: Resource temporarily unavailable" in clock_of(p)
    by_reason = pprof.bracketed_ns([p])
    del by_reason[FULL]  # a collector that got no processor
    assert sum(by_reason.values()) <= FREE * p.ns, (by_reason, p.ns)


@pytest.mark.parametrize("signals", [1, 3])
def test_few(out, signals):
    """As many threads as there are signals have a timer, others have what there is."""
    r, p = usage(out, signals, 8, 40)
    assert len(harness.lines(r.err)) <= 1 and p.count > 0


def test_neither_signals_nor_perf(out):
    """One timer for all that have none of their own: whoever runs when it ticks is sampled."""
    r, p = usage(out, 10, 40, 30, clock="timer", hz=1000)
    assert r.err == b""
    assert re.search(r"process timer for \d+ threads", clock_of(p)), clock_of(p)
    by_reason = pprof.bracketed_ns([p])
    assert sum(by_reason.values()) < 0.1 * p.ns, by_reason  # threads that it never met, and they say so


def test_nothing_to_be_had(out):
    """No timer at all, at start already: said at once, and all time is told as what it is."""
    r, p = usage(out, 0, 4, 100, clock="timer")
    assert "no clock for a thread" in harness.one_line(r.err)
    assert pprof.bracketed_ns([p])["[unsampled]"] > 0.9 * p.ns
    assert "no clock for 5 threads" in clock_of(p)
