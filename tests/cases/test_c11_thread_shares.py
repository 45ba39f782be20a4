"""C11: each thread within one percent of its own CPU clock, however many share the processors."""

import json

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def test_many_threads_on_few_processors(out, setting):
    """A timer that was due and not yet looked at when its thread ended is a part of that thread's time too."""
    # Each uses sixteen periods or more, so that it is brought to its own clock.
    threads, total_ms = (8, 8000) if setting.hz <= harness.TICK_HZ else (16, 7000)
    r = harness.run([harness.program("split"), threads, total_ms], profile=out)
    p = pprof.valid(out)
    by_tid = p.by_label("tid")
    for t in json.loads(r.out)["threads"]:
        assert t["total"] > 16 * p.pb.period
        bound = 0.01 * t["total"] + 1e9 / harness.TICK_HZ
        assert abs(by_tid[t["tid"]] - t["total"]) <= bound, (t, by_tid[t["tid"]])
