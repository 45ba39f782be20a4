"""C07: a fork that takes longer than the ticks are apart must end: none is delivered meanwhile."""

import harness
import pprof

CHILDREN = 2


def test_forks_of_many_ticks(out):
    argv = [harness.program("large_fork"), CHILDREN]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=120)
    assert plain.status == 0 and plain.out.count(b" %d\n" % CHILDREN) == 5, plain
    assert (r.status, r.out) == (plain.status, plain.out), r
    blocked, open_ = map(int, plain.err.split())
    assert blocked == 0
    # In between it is open, for a moment that the one who looks may take for longer.
    blocked, open_ = map(int, r.err.split())
    assert blocked > open_ or blocked + open_ == 0, r.err
    assert pprof.valid(out).cum()["work_between"] > 5e6 * CHILDREN
    # Forked ones have files of their own.
    others = harness.wait_until(
        lambda: [f for f in out.parent.glob("*.pb.gz") if f != out and pprof.load(f).ns > 5e6][CHILDREN - 1:], 20)
    assert others, list(out.parent.iterdir())
    assert harness.wait_until(lambda: not list(out.parent.glob("*.tmp")), 20)
    for path in out.parent.iterdir():
        pprof.valid(path)
