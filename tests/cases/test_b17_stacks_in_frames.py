"""B17: stacks that lie in a live frame of the thread's own stack, and whoever is taken off the processor inside a stub."""

import pytest

import harness
import under_barriers

WAYS = ["turns", "plain", "preempted", "handed", "alternate", "storm"]


@under_barriers.modes
@pytest.mark.parametrize("way", WAYS)
def test_no_return_is_misdirected(out, way, mode):
    p = under_barriers.run([harness.program("in_frames"), way, "300"], out, mode)
    under_barriers.assert_used(p, mode)
