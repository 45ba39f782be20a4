"""B08: recursion, mutual recursion and tail calls a hundred thousand deep: the right sums at a constant cost."""

import resource

import pytest

import harness
import pprof
from under_barriers import HZ, assert_used, environment, modes

MS = 300
DEPTH = 100_000
STACK = 64 << 20
SAVED = 0.8  # of all frames: most are never new, but for what is sampled before the collector has learned the code


def large_stack():
    """In the program, before it begins."""
    resource.setrlimit(resource.RLIMIT_STACK, (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))


@modes
@pytest.mark.parametrize("way,stack", [("recursion", "thread"), ("mutual", "thread"), ("tail", "thread"),
                                       ("mutual", "main")])
def test_a_hundred_thousand_frames(way, stack, mode, out):
    argv = [harness.program("deep_calls"), way, stack, str(MS)]
    plain = harness.run(argv, preexec_fn=large_stack)
    barred = harness.run(argv, profile=out, hz=HZ, env=environment(mode), preexec_fn=large_stack)
    assert plain.status == 0 and barred.same == plain.same, (plain, barred)
    p = pprof.load_ends(out)
    told = assert_used(p, mode)
    assert told["placed"] > 0 and told["saved"] > SAVED * told["frames"], told
    deep = sum(s.count * s.labels["depth"] for s in p.samples if s.labels["depth"] > 0.9 * DEPTH)
    assert deep > SAVED * told["frames"], (deep, told)  # so it is of the deep ones that the share tells
