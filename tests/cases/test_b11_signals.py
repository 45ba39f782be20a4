"""B11: signals that arrive deep on a stack with barriers: nested, on alternate stacks, whose handlers throw or jump."""

import pytest

import harness
import under_barriers

WAYS = ["nested", "small", "large", "fault", "raised", "jump"]


@under_barriers.modes
@pytest.mark.parametrize("way", WAYS)
def test_results_are_the_same(out, way, mode):
    p = under_barriers.run([harness.program("deep_signals"), way, "300"], out, mode)
    under_barriers.assert_used(p, mode)
    wanted = "fall" if way in ("fault", "raised") else "work_in_handler" if way == "jump" else "on_second"
    assert any(wanted in name for name in p.cum())
