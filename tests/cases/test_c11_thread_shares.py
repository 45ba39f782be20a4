"""C11: each thread within one percent of its own CPU clock, however many share the processors."""

import json

import harness
import pprof


def test_many_threads_on_few_processors(out):
    """A timer that was due and not yet looked at when its thread ended is a part of that thread's time too."""
    r = harness.run([harness.program("split"), "16", "12000"], profile=out)
    p = pprof.valid(out)
    by_tid = p.by_label("tid")
    for t in json.loads(r.out)["threads"]:
        bound = 0.01 * t["total"] + p.pb.period + 1e9 / harness.TICK_HZ
        assert abs(by_tid[t["tid"]] - t["total"]) <= bound, (t, by_tid[t["tid"]])
