"""B07: what functions return arrives, and what they leave alone stays, in every register, flags included."""

import pytest

import harness
from under_barriers import assert_used, modes, run

MS = 300


@modes
def test_every_register(mode, out):
    """A return that changed anything that the caller can see would be noticed by the caller's next instructions."""
    p = run([harness.program("registers"), str(MS)], out, mode)
    assert_used(p, mode)
    assert p.stacks("every_register")


@modes
@pytest.mark.parametrize("name", ["results", "results_v3"])
def test_compiled_code(name, mode, out):
    """Results of every class, and values in registers that callees are known to spare; with -O3 and AVX2 as well."""
    if harness.run([harness.program(name), "0"]).status == 77:
        pytest.skip("this processor has no AVX2")
    p = run([harness.program(name), str(MS)], out, mode)
    assert_used(p, mode)
    names = {f.name.split("::")[-1] for s in p.samples for f in s.frames}
    assert any(n.startswith("try_chain") for n in names) and any(n.startswith("link<") for n in names), names
