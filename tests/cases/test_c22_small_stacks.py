"""C22: threads and fibers whose stacks have no room for a signal's frame live, and are sampled."""

import pytest

import harness
import pprof


@pytest.mark.parametrize("hz", [harness.TICK_HZ, 10000])
def test_small_stacks(out, hz):
    plain = harness.run([harness.program("small_stacks")])
    r = harness.run([harness.program("small_stacks")], profile=out, hz=hz)
    assert r.same == plain.same == (0, b"done\n", b"")
    p = pprof.valid(out)
    names = ("spin_on_small_stack", "spin_with_no_room", "spin_on_fiber")
    # Three hundred frames on 64 KiB, ten thousand times a second, are more than the collector can walk: what it cannot,
    # and what waits behind that, is told, and nothing is missing.
    full = sum(s.ns for s in p.samples if len(s.frames) == 1 and pprof.reason(s) == "[buffer full]")
    assert sum(p.cum()[name] for name in names) + full == pytest.approx(1200e6, rel=0.05)
    for name in names:
        assert 400e6 - full - 40e6 < p.cum()[name] < 440e6, name
    assert hz > harness.TICK_HZ or full < 20e6
    # The threads' stacks are whole, down to where libc starts them; a slow collector may cost one or two.
    callers = {"spin_on_small_stack": "small_main"}
    if hz == harness.TICK_HZ:
        callers["spin_with_no_room"] = "full_main"
    for name, caller in callers.items():
        stacks = [s for s in p.samples if any(f.name == name for f in s.frames)]
        whole = sum(s.ns for s in stacks if any(f.name == caller for f in s.frames) and pprof.is_start(s.frames[-1]))
        assert whole > 0.95 * sum(s.ns for s in stacks), name
