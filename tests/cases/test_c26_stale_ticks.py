"""C26: signals that are nobody's tick are not taken for one, and counted; a thread's id may be another's before."""

import re

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

ROUNDS = 40


def stale(p):
    return int(re.search(r"stale signals: (\d+)", "\n".join(p.comments)).group(1))


def test_signals_of_others(out):
    """Sent, queued, with other timers' values: not one changes what is counted."""
    r = harness.run([harness.program("late_ticks"), "running", "", "0", ROUNDS], profile=out)
    assert (r.status, r.err) == (0, b"")
    sent, p = int(r.out), pprof.valid(out)
    assert sent == 6 * ROUNDS
    # One that finds another pending is dropped by the kernel; one of ours that comes too late is stale as well.
    assert 0.9 * sent <= stale(p) <= 1.1 * sent, (stale(p), sent)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=30e6)


def test_ids_that_are_used_again(out):
    """Each thread ends with a tick pending, and the next one has its id, or the one after that. In a container, whose
    ids are nobody else's."""
    unshare = [harness.tool("unshare"), "--pid", "--fork", "--mount-proc"]
    if harness.run([*unshare, "true"]).status != 0:
        pytest.skip("no right to make a pid namespace here")
    r = harness.run([*unshare, "env", *harness.assignments(harness.profile_environment(out)),
                     harness.program("late_ticks"), "reused", "", "0", ROUNDS])
    assert (r.status, r.err) == (0, b"")
    if int(r.out) == 0:
        pytest.skip("the kernel cannot be told the next thread's id here")
    p = pprof.valid(out)
    assert p.ns > 0.95 * ROUNDS * 8e6
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.05, abs=60e6)
