"""C37: a vfork child's `_exit` or exec runs a profiler's hooks in its parent's memory: here it goes straight through."""

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

ROUNDS = 20


def test_every_kind_of_child(out):
    """The parent's own time is all there, in its one file; children that only exit have none, and end nothing of its."""
    plain = harness.run([harness.program("vforks"), ROUNDS])
    r = harness.run([harness.program("vforks"), ROUNDS], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out)
    assert (r.status, r.out) == (12, b"%d right, %d shared, -1 children left\nat exit\n" % (5 * ROUNDS, 3 * ROUNDS))
    used = int(r.err)
    p = pprof.valid(out)
    assert p.ns == pytest.approx(used, rel=0.05, abs=60e6), (p.ns, used)
    assert p.cum()["work_in_parent"] > 0.5 * ROUNDS * 5 * 2e6 and p.cum()["work_in_thread"] > 0
    pids = {s.labels["pid"] for s in p.samples}
    assert len(pids) == 1
    # Only what was executed may have files: two of the five kinds.
    assert harness.wait_until(lambda: not list(out.parent.glob(".*.tmp")), 20)
    others = [pprof.valid(f) for f in out.parent.glob("*.pb.gz") if f != out]
    assert len(others) <= 2 * ROUNDS
    assert all(not p.cum()["work_in_parent"] and not pids & {s.labels["pid"] for s in p.samples} for p in others)


SUBPROCESSES = """
import subprocess, sys
codes = [subprocess.run(['/bin/sh', '-c', f'exit {i}']).returncode for i in range(25)]
codes.append(subprocess.run(['/bin/true']).returncode)
try: subprocess.run(['/nonexistent/program'])
except FileNotFoundError: codes.append(-1)
print(codes, sum(i * i for i in range(3000000)))
"""


def test_subprocess_of_cpython(out):
    """CPython starts children with vfork, and again and again."""
    plain = harness.run([harness.PYTHON, "-c", SUBPROCESSES])
    r = harness.run([harness.PYTHON, "-c", SUBPROCESSES], profile=out)
    assert r.same == plain.same and r.status == 0 and r.err == b""
    assert pprof.valid(out).ns > 0.1e9
