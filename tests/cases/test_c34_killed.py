"""C34: SIGKILL, and the kernel's when memory is out: nothing of the program runs any more, and its profile has all up to then."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

KILLS = 13  # at each of the four settings: more than fifty
AT_ONCE = 4
PART = 200 * 10**6  # what was used earlier than this before the kill has to be there
TICK_NS = 10**9 // harness.TICK_HZ


def told(data):
    """What the program has said of its clocks, in whole lines: [(CLOCK_MONOTONIC, CPU time)]."""
    return [tuple(map(int, line.split())) for line in data.decode().split("\n")[:-1]]


def killed(app, seconds):
    """Kills a program a while after it has begun. Returns what it had used for certain, and what at most."""
    harness.wait_until(lambda: app.out.count(b"\n") >= 1, 60)
    time.sleep(seconds)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    app.signal(signal.SIGKILL)
    r = app.wait(20)
    assert r.status == -signal.SIGKILL and r.err == b""
    said = told(r.out)
    return max([cpu for mono, cpu in said if mono <= before - PART], default=0), r


def test_at_random_moments(out):
    """Each a valid profile with every sample that is older than 200 ms; none has more than was used."""
    moments = [random.uniform(0, 0.7) for _ in range(KILLS)]
    for first in range(0, KILLS, AT_ONCE):
        apps = [(n, harness.Program([harness.program("telling_time")], profile=out.with_name(f"{n}.pb.gz")))
                for n in range(first, min(first + AT_ONCE, KILLS))]
        try:
            for n, app in apps:
                used, r = killed(app, moments[n] / AT_ONCE)
                p = pprof.valid(out.with_name(f"{n}.pb.gz"))
                # The sample before the last line may be a period old, and a period of it a kernel's tick long.
                assert p.ns >= used - p.pb.period - 2 * TICK_NS, (n, moments[n], p.ns, used)
                assert p.ns <= r.cpu_ns + p.pb.period + 4 * TICK_NS, (n, moments[n], p.ns, r.cpu_ns)
        finally:
            for _, app in apps:
                app.__exit__()
    assert sorted(f.name for f in out.parent.iterdir()) == sorted(f"{n}.pb.gz" for n in range(KILLS))


EATS = """
import os, time
kept = []
while True:
    kept.append(bytearray(os.urandom(1 << 16)) * 32)
    end = time.process_time() + 0.005
    while time.process_time() < end: pass
    print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.process_time_ns(), flush=True)
"""


class MemoryGroup:
    """A control group with little memory, of either version; .why: why there is none."""

    def __init__(self, limit):
        self.path, self.why = None, "no memory control group here"
        for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            path = Path(root) / f"stile-{os.getpid()}"
            try:
                if not (Path(root) / "cgroup.procs").exists():
                    continue
                path.mkdir()
                self.path = path
                (path / name).write_text(str(limit))
                for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
                    if (path / swap).exists():
                        (path / swap).write_text("0" if swap.endswith("max") else str(limit))
                return
            except OSError as e:
                self.why = f"no memory control group can be made: {e}"
                self.close()

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        if self.path is not None:
            harness.wait_until(lambda: not (self.path / "cgroup.procs").read_text(), 10)
            os.rmdir(self.path)
            self.path = None


def test_out_of_memory(out):
    """The kernel kills the largest of the group, which is the program."""
    group = MemoryGroup(160 << 20)
    if group.path is None:
        pytest.skip(group.why)
    try:
        with harness.Program([harness.PYTHON, "-c", EATS], profile=out, preexec_fn=group.enter) as app:
            r = app.wait(60)
        assert r.status == -signal.SIGKILL, r
        p = pprof.valid(out)
        said = told(r.out)
        used = max([cpu for mono, cpu in said if mono <= said[-1][0] - PART], default=0)
        assert len(said) > 10 and p.ns >= used - p.pb.period - 2 * TICK_NS
    finally:
        harness.wait_until(lambda: not harness.collectors(os.environ[harness.MARK]), 20)
        group.close()
