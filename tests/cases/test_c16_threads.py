"""C16: all threads, without registration."""

import json

import harness
import pprof


def test_threads_that_a_library_makes(out):
    """Nobody called anything of ours."""
    r = harness.run([harness.program("split"), "8", "3600"], profile=out)
    by_tid = pprof.valid(out).by_label("tid")
    for t in json.loads(r.out)["threads"]:
        assert by_tid[t["tid"]] > 0.5 * t["total"] - 50e6
    assert sum(ns > 0 for ns in by_tid.values()) >= 8
