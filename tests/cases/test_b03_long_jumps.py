"""B03: jumps over many frames, also out of handlers of many signals, leave barriers behind, which retire."""

import pytest

import harness
from under_barriers import assert_used, modes, run

MS = 400


@modes
@pytest.mark.parametrize("way", ["longjmp", "siglongjmp", "timer", "thread"])
def test_jumps_over_barriers(way, mode, out):
    p = run([harness.program("long_jumps"), way, str(MS)], out, mode)
    told = assert_used(p, mode)
    if mode == "all":
        assert told["retired"] > 0, told
    assert p.stacks("descend")
    if way in ("timer", "thread"):
        assert p.stacks("bottom")
