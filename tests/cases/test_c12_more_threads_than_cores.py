"""C12: with more threads than processors ticks come late and in heaps; all of them count."""

import json

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def test_sixteen_times_the_processors(out):
    r = harness.run([harness.program("usage"), "threads", "32", "40"], profile=out)
    assert (r.status, r.err) == (0, b"")
    p, told = pprof.valid(out), json.loads(r.out)
    assert p.ns == pytest.approx(told["process"], rel=0.01)
    period = p.pb.period
    assert abs(p.count - told["process"] / period) <= 0.01 * told["process"] / period + len(told["threads"]) + 1
    assert p.count * period == pytest.approx(p.ns, rel=0.01, abs=(len(told["threads"]) + 1) * period)


def test_the_last_of_many_is_the_one_that_works(out):
    """Rings of threads that come late are small, and are drained as often as that takes."""
    r = harness.run([harness.program("late_worker"), "80", "100", "700"], profile=out, hz=10000)
    assert (r.status, r.err) == (0, b"")
    p = pprof.valid(out)
    assert pprof.bracketed_ns([p])["[buffer full]"] < 0.1 * p.ns
