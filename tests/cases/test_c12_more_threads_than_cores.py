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
