"""B09: children of all kinds, made deep on a stack with barriers in place: parent and child return through all its frames."""

import pytest

import harness
import pprof
import under_barriers

FORKED = 24  # that work, and have a profile each


def children_of(out, at_least):
    """The profiles of the children, which are written beside the first."""
    found = harness.wait_until(lambda: (f := sorted(out.parent.glob("out.*.pb.gz"))) and len(f) >= at_least and f, 20)
    assert found, sorted(p.name for p in out.parent.iterdir())
    return found


@under_barriers.modes
@pytest.mark.parametrize("way", ["fork", "threads"])
def test_forked_children_return_through_their_parents_frames(out, way, mode):
    p = under_barriers.run([harness.program("deep_children"), way, "150"], out, mode)
    under_barriers.assert_used(p, mode)
    children = children_of(out, FORKED)
    assert len(children) == FORKED
    for child in map(pprof.valid, children[::8]):  # to read all takes a minute
        pid, = child.by_label("pid")
        assert child.name == harness.child_path(out, pid).name
        assert len(child.by_label("tid")) == 1
        under_barriers.assert_used(child, mode)


@under_barriers.modes
def test_children_that_execute(out, mode):
    p = under_barriers.run([harness.program("deep_children"), "exec", "150"], out, mode)
    under_barriers.assert_used(p, mode)
    pids = p.by_label("pid")
    assert len(pids) == 1, pids  # what a vfork child does is not its parent's
    for child in sorted(out.parent.glob("out.*.pb.gz"))[::4]:
        pprof.valid(child)
