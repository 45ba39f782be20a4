"""C05: while libgcc leaves for a landing pad, stack pointer and place disagree for a moment; ticks come there, too."""

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def test_throwing_all_the_time(out, setting):
    argv = [harness.program("throwing"), "400"]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert r.same == plain.same == (0, b"wrong 0\n", b"")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
    assert p.cum()["many::throw_for(unsigned long)"] > 0.5 * p.ns
    if setting.hz > harness.TICK_HZ:  # they did come there
        assert p.cum()["_Unwind_RaiseException"] > 0 and p.cum()["_Unwind_Resume"] > 0
