"""B16: functions that hand on, or look at, their own return address after others have run above them."""

import pytest

import harness
import under_barriers

SECONDS = "1.5"


@under_barriers.modes
@pytest.mark.parametrize("name,way", [("own_address_called", "called"), ("own_address_counted", "counted")])
def test_instrumented(name, way, out, mode):
    p = under_barriers.run([harness.program(name), way, SECONDS], out, mode)
    under_barriers.assert_off(p, f"{name} is instrumented")


@under_barriers.modes
def test_read_late(out, mode):
    """Nothing tells of these but their code: their frames have none, those beside them have."""
    r = harness.run([harness.program("own_address"), "read", "0.1"])
    assert harness.lines(r.out)[0].startswith("wrong: 0,"), r
    p = under_barriers.run([harness.program("own_address"), "read", SECONDS], out, mode)
    under_barriers.assert_used(p, mode)


@under_barriers.modes
def test_jumped_to(out, mode):
    """A setjmp of the program's own keeps the return address of who jumped to it after deep work."""
    p = under_barriers.run([harness.program("own_setjmp"), SECONDS], out, mode)
    under_barriers.assert_used(p, mode)
