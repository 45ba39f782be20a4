"""C23: a tick in a handler of the program's, on its alternate stack: the handler of ticks is small, and has room where
there is none."""

import pytest

import harness
import pprof
from whole import assert_has

pytestmark = pytest.mark.measures

HANDLER_MAX = 2048  # bytes below the kernel's frame


def deepest(r):
    assert (r.status, r.err) == (0, b""), r
    return int(r.out)


@pytest.mark.parametrize("env", [{}, {"PROFILE_DEBUG": harness.debug("walktime=1", "verifyunwind=2")},
                                 {"PROFILE_CLOCK": "timer", "PROFILE_DEPTH": "20"}],
                         ids=["usual", "checked", "timer"])
def test_stack_of_the_handler(out, env):
    """Painted stacks, on which ticks come everywhere: in deep recursions, where frames are new, on a fiber, in the
    kernel."""
    argv = [harness.program("nested_ticks"), "painted", "150"]
    assert deepest(harness.run(argv)) == 0
    used = deepest(harness.run(argv, profile=out, env=env, timeout=60))
    assert 200 < used < HANDLER_MAX
    p = pprof.valid(out)
    assert all(p.cum()[name] > 0 for name in ("work_flat", "work_deep"))


def test_stack_of_a_thread(out):
    """The smallest that there is: nothing is written below where the thread is."""
    argv = [harness.program("nested_ticks"), "small", "200"]
    assert deepest(harness.run(argv)) == 0
    assert deepest(harness.run(argv, profile=out)) == 0
    assert_has(pprof.valid(out), "work_flat", 200e6)


def test_in_a_handler_on_the_smallest_stack(out):
    """It has room for the kernel's frame and for the program's handler of SIGSEGV, and lies above a page that nobody
    may touch."""
    argv = [harness.program("nested_ticks"), "faults", "400"]
    plain = harness.run(argv)
    r = harness.run(argv, profile=out)
    assert r.same == plain.same == (0, b"0\n", b"")
    assert_has(pprof.valid(out), "work_in_handler", 400e6)
