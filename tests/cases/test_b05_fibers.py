"""B05: fibers, resumed from every depth of a thread's own stack, where barriers are, by one thread or another."""

import pytest

import harness
from under_barriers import assert_used, modes, run

MS = 400
THREADS = {"fiber_ucontext": 2, "fiber_boost": 2, "fiber_pth": 1}


@modes
@pytest.mark.parametrize("name", THREADS)
def test_fibers(name, mode, out):
    p = run([harness.program(name), str(MS)], out, mode)
    assert_used(p, mode)
    assert p.stacks("fiber_descend")
    assert len({s.labels["tid"] for s in p.stacks("descend")}) == THREADS[name]
