"""What the cases share that count whole stacks."""

from types import SimpleNamespace

import pytest

import harness
import pprof

FULL = "[buffer full]"


def broken_ns(p, function=None):
    """Time in stacks (of a function, if one is named) that do not reach where their thread starts, and time in all. A
    collector that got no processor on a busy machine is not what is asked here: what found no room meanwhile is told,
    and left out."""
    samples = [s for s in (p.stacks(function) if function else p.samples) if pprof.reason(s) != FULL]
    total = sum(s.ns for s in samples)
    share, broken = pprof.complete_share([SimpleNamespace(samples=samples)])
    return (1 - share) * total, total, broken


def assert_has(p, function, ns, share=0.85):
    """A function has its time (or more: it works until the clock says so, whoever ran), but for what found no room:
    that has no stack at all."""
    full = sum(s.ns for s in p.samples if len(s.frames) == 1 and pprof.reason(s) == FULL)
    assert p.cum()[function] + full >= share * ns, (function, p.cum()[function], ns, full)


def assert_whole(p, share=0.99):
    """So large a share of the time is in whole stacks, or all but one sample."""
    broken, total, which = broken_ns(p)
    assert broken <= max((1 - share) * total, 1.5 * p.pb.period), (broken, total, which.most_common(5))


def assert_loader_beside(out, way, ms):
    """One thread works for so much CPU time beside another that keeps the loader or the map of memory busy in a way of
    loader_busy's: the time of both is there, in whole stacks, and the program is as without."""
    argv = [harness.program("loader_busy"), way, harness.program("plugin.so"), str(ms)]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert (r.status, r.err) == (plain.status, plain.err) == (0, b"")
    p = pprof.valid(out)
    assert_has(p, "work_beside", ms * 1e6)
    assert p.cum()["work_under_lock"] > 20e6
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
    assert_whole(p)
