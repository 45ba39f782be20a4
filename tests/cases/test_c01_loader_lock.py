"""C01: the loader's lock is taken all the time, by who loads and unloads and by who reads the list of modules.
No tick asks for it."""

import pytest

import harness
import pprof
from whole import assert_has, assert_whole

pytestmark = pytest.mark.measures


def test_loading_and_listing(out):
    argv = [harness.program("loader_busy"), "turns", harness.program("plugin.so"), "500"]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert (r.status, r.err) == (plain.status, plain.err) == (0, b"")
    p = pprof.valid(out)
    assert_has(p, "work_beside", 500e6)
    assert p.cum()["work_under_lock"] > 20e6
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
    assert_whole(p)
