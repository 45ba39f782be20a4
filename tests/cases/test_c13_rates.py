"""C13: where the kernel's clock is slower than asked, signals weigh more; the profile says how many there were."""

import json
import re

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


@pytest.mark.parametrize("clock", ["auto", "timer"])
def test_what_is_in_effect_is_said(out, setting, clock):
    r = harness.run([harness.program("usage"), "threads", "2", "400"], profile=out, env={"PROFILE_CLOCK": clock})
    assert (r.status, r.err) == (0, b"")
    p, cpu_ns = pprof.valid(out), json.loads(r.out)["process"]
    said = "\n".join(p.comments)
    hz, effective = re.search(r"rate: (\d+) Hz requested, ([\d.]+) signals per second of CPU time", said).groups()
    ticks, signals = map(int, re.search(r"samples: (\d+) ticks in (\d+) signals", said).groups())
    assert int(hz) == setting.hz and ticks == p.count
    assert float(effective) == pytest.approx(signals * 1e9 / cpu_ns, rel=0.02)
    # Every tick is there, by however few signals.
    assert abs(p.count - cpu_ns * setting.hz / 1e9) <= 0.01 * cpu_ns * setting.hz / 1e9 + 3
    assert p.ns == pytest.approx(cpu_ns, rel=0.01)
    if clock == "timer" and setting.hz > harness.TICK_HZ:
        assert float(effective) < 1.5 * harness.TICK_HZ  # beside other programs a tick finds one by chance
    elif setting.hz > harness.TICK_HZ and "perf cpu-clock" in said:
        assert float(effective) > harness.TICK_HZ
