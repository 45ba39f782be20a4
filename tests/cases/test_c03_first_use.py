"""C03: nothing is made ready in the first tick, which may come anywhere: with the loader's lock held, say."""

import pytest

import harness
import pprof
from whole import assert_has, broken_ns

pytestmark = pytest.mark.measures


def test_all_ticks_come_under_the_loaders_lock(out):
    """From the first on each has its whole stack, and there is no unwinder in the program, before or after."""
    argv = [harness.program("loader_busy"), "first", harness.program("plugin.so"), "400"]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert (r.status, r.err) == (plain.status, plain.err) == (0, b"")
    assert sorted(harness.lines(r.out)) == sorted(harness.lines(plain.out) + ["libstile.so"])
    assert all(name.startswith(("libc.", "ld-linux")) for name in harness.lines(plain.out)), plain.out
    p = pprof.valid(out)
    assert_has(p, "work_under_lock", 400e6)
    broken, total, which = broken_ns(p, "work_under_lock")
    assert broken < 1.5 * p.pb.period and total > 0, (broken, which)  # one that came inside a stub
