"""C02: code is mapped and unmapped all the time; the tick that interrupts the reading of it finds no lock of ours."""

import pytest

import harness
import pprof
from whole import assert_has, assert_whole

pytestmark = pytest.mark.measures


def test_mapping_and_unmapping(out):
    argv = [harness.program("loader_busy"), "maps", harness.program("plugin.so"), "400"]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert (r.status, r.err) == (plain.status, plain.err) == (0, b"")
    p = pprof.valid(out)
    assert_has(p, "work_beside", 400e6)
    assert p.cum()["work_under_lock"] > 20e6
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
    assert_whole(p)
