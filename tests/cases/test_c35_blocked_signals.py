"""C35: threads that block all signals, as xz's workers do, are sampled; the program sees the masks that it set."""

import pytest

import harness
import pprof


def test_masked_threads(out):
    plain = harness.run([harness.program("masked")])
    r = harness.run([harness.program("masked")], profile=out)
    assert r.same == plain.same
    assert r.out == b"start_empty 1 all_blocked 1 old_full 1 back 1 inherited 1 1 kept 1 1\n"
    p = pprof.valid(out)
    assert p.cum()["spin_masked"] == pytest.approx(2e9, rel=0.03)
    assert p.cum()["spin_open"] == pytest.approx(300e6, rel=0.1)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03)
    assert pprof.bracketed_share([p]) < 0.005, pprof.bracketed_ns([p])
