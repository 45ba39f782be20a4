"""C33: threads that are made and ended all the time leave nothing behind, and all of their time is counted."""

import json
import os

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

THREADS = 30000 if os.environ.get("STILE_TEST_LONG") else 2500  # at each of four settings


def test_threads_leave_nothing(out):
    """Mappings, descriptors, timers and memory of the program stay as they were after the first tenth of them."""
    r = harness.run([harness.program("churn"), THREADS], profile=out, timeout=900)
    assert r.status == 0 and r.err == b"", r
    early, late = json.loads(r.out)
    assert late["fds"] == early["fds"] == 3
    assert late["maps"] <= early["maps"] + 4, (early, late)
    assert late["timers"] <= early["timers"], (early, late)
    assert late["rss_kb"] < early["rss_kb"] + 2048, (early, late)
    p = pprof.valid(out)
    # The end of the process itself is after its last look at its clock.
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=2 * p.pb.period + 30e6), p.comments
    assert pprof.bracketed_share([p]) < 0.02, pprof.bracketed_ns([p])
