"""B10: threads on stack memory that other threads have had, with their barriers: nothing of those is believed."""

from collections import Counter

import pytest

import harness
import under_barriers

DEPTH = 200
KINDS = ("a", "b")


def functions_of(sample):
    """How often each kind's functions are on a stack, by kind and function."""
    return Counter((f.name[0], f.name[2:]) for f in sample.frames if f.name[:2] in ("a_", "b_"))


@under_barriers.modes
@pytest.mark.parametrize("way", ["given", "cached", "ends"])
def test_no_stack_has_frames_of_an_earlier_thread(out, way, mode):
    p = under_barriers.run([harness.program("deep_threads"), way, "400"], out, mode)
    under_barriers.assert_used(p, mode)
    deepest = Counter()
    for s in p.samples:
        found = functions_of(s)
        kinds = {kind for kind, _ in found}
        assert len(kinds) <= 1, [f.name for f in s.frames]
        unwinding = any(f.name.startswith("_Unwind_") for f in s.frames)  # its last step is two frames at once
        for (kind, name), n in found.items():
            assert unwinding or n <= (DEPTH if name == "down" else 60), [f.name for f in s.frames]
            if name != "main":
                assert found[kind, "main"] == 1 or s.frames[-1].name.startswith("["), [f.name for f in s.frames]
            deepest[kind, name] = max(deepest[kind, name], n)
    for kind in KINDS:
        assert deepest[kind, "down"] == DEPTH and deepest[kind, "leave_deep"] >= 60, deepest
