"""C35: threads that block all signals, as xz's workers do, are sampled; the program sees the masks that it set."""

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def test_masked_threads(out):
    plain = harness.run([harness.program("masked")])
    r = harness.run([harness.program("masked")], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out)
    assert r.out == b"start_empty 1 all_blocked 1 old_full 1 back 1 inherited 1 1 kept 1 1\n"
    masked, unmasked = map(int, r.err.split())
    p = pprof.valid(out)
    bracketed = pprof.bracketed_but_full_ns([p])
    assert sum(bracketed.values()) < 0.005 * p.ns + p.pb.period, bracketed
    full, some = pprof.bracketed_ns([p])["[buffer full]"], 4 * p.pb.period
    assert masked - full == pytest.approx(p.cum()["spin_masked"], abs=0.03 * masked + full + some)
    assert unmasked - full == pytest.approx(p.cum()["spin_open"], abs=0.05 * unmasked + full + some)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=some)
