"""B02: threads that exit or are cancelled deep in their stacks clean up every frame, in C and in C++."""

import pytest

import harness
from under_barriers import assert_used, modes, run

MS = 400  # of CPU time, in which some hundred threads end

# Handlers of C as setjmp's, as the unwinder's, and destructors of C++ with both.
PROGRAMS = ["thread_ends_c", "thread_ends_unwound", "thread_ends_cc"]


@modes
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_frame_is_cleaned_up(name, mode, out):
    """By pthread_exit, and by cancellation deferred, in a wait, and anywhere; the main thread's exit at last."""
    p = run([harness.program(name), str(MS)], out, mode)
    assert_used(p, mode)
    assert p.stacks("frames_descend") and p.stacks("recurse")
