"""Runs of programs, in turn, and what can be said of several of them."""

import ctypes
import math
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PROFILE = "profile.pb.gz"  # Stile takes other names for somebody else's variable
LEFT_BEHIND_S = 60  # within which what a command has left behind, such as a collector, has to end
RESAMPLED = 2000


class Failed(Exception):
    """A run that cannot be measured, in one line."""


@dataclass
class Run:
    """One run of a command. Times are seconds; CPU times include that of children that were waited for."""
    status: int  # as subprocess has it
    wall: float
    user: float
    system: float
    beside: float  # CPU time of what ran for the command's sake outside of it: a collector, perf itself
    rss: int  # bytes, the most that the command had resident
    beside_rss: int  # the same of the largest that ran for its sake outside of it; 0: none did
    start: float  # CLOCK_MONOTONIC
    end: float
    out: bytes
    err: bytes
    directory: Path  # of this run alone, and kept until the next one of the same side; the profile is in it

    @property
    def cpu(self):
        return self.user + self.system

    @property
    def total(self):
        return self.cpu + self.beside

    @property
    def profile(self):
        return self.directory / PROFILE

    def forget(self):
        """Removes what it has written, which may be a lot; its figures stay."""
        shutil.rmtree(self.directory, ignore_errors=True)
        return self

    @property
    def profile_bytes(self):
        """Of all that was written under the profile's name: a file for each process, or a directory."""
        files = [f for p in self.directory.glob("profile*") for f in ([p] if p.is_file() else p.rglob("*"))]
        return sum(f.stat().st_size for f in files if f.is_file())


def become_subreaper():
    """Should `launch` be ended, what it has adopted becomes our child, so that `end_all` finds it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children(pid):
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for t in tasks for c in (t / "children").read_text(encoding="ascii").split()]
    except OSError:  # it has ended meanwhile
        return []


def end_all():
    """Ends all that runs for our sake, whoever's child it is, and waits for it: what hangs must be in no later run's way."""
    deadline = time.monotonic() + LEFT_BEHIND_S
    while time.monotonic() < deadline:
        running = _children(os.getpid())
        for pid in running:
            running += _children(pid)
        for pid in running:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.wait4(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


class _Started:
    """A command on its way. `launch` adopts what it leaves behind, so that this is told from other commands'."""

    def __init__(self, bench, argv, side=None, hz=100, env=None, directory=None, cwd=None, cpu=None):
        self.what = f"{argv[0]}{f' under {side.name}' if side else ''}"
        self.directory = Path(directory or tempfile.mkdtemp(prefix="run-", dir=bench.scratch))
        self.used = self.directory / "used"
        prefix, variables = side.command(self.directory / PROFILE, hz) if side else ([], {})
        pinned = side.pinned if side and cpu is not None else {}
        variables = {**variables, **pinned, **(env or {})}
        command = [*prefix, bench.program("launch"), "-a", *(["-c", cpu] if cpu is not None else []), self.used,
                   *(f"{k}={v}" for k, v in variables.items()), *argv]
        # What a run leaves in memory must not fill a pipe: files.
        with open(self.directory / "out", "wb") as out, open(self.directory / "err", "wb") as err:
            self.began = time.monotonic()
            self.child = subprocess.Popen([str(a) for a in command], env=bench.environment, cwd=cwd,
                                          stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def _over_within(self, limit_s):
        """Whether all of it has ended by so many seconds after its start."""
        try:
            pidfd = os.pidfd_open(self.child.pid)
        except ProcessLookupError:  # ended with one that hung
            return True
        try:
            return bool(select.select([pidfd], [], [], max(0, self.began + limit_s - time.monotonic()))[0])
        finally:
            os.close(pidfd)

    def _wait(self, limit_s):
        """Until nothing of it is left. Returns the CPU time of all."""
        if not self._over_within(limit_s):
            command_ended = self.used.exists() and self.used.read_text() != ""
            if not command_ended or not self._over_within(limit_s + LEFT_BEHIND_S):
                end_all()
                self.child.returncode = -signal.SIGKILL  # reaped there
                what = "what it has left behind still runs" if command_ended else "it still runs"
                raise Failed(f"{self.what}: {what} after {limit_s + (LEFT_BEHIND_S if command_ended else 0)} s")
        try:
            _, status, used = os.wait4(self.child.pid, 0)
        except ChildProcessError:
            self.child.returncode = -signal.SIGKILL
            raise Failed(f"{self.what}: ended with one that hung") from None
        self.child.returncode = os.waitstatus_to_exitcode(status)  # reaped here
        return used.ru_utime + used.ru_stime

    def ended(self, limit_s):
        """The Run, once all has ended."""
        cpu = self._wait(limit_s)
        out, err = (self.directory / "out").read_bytes(), (self.directory / "err").read_bytes()
        lines = self.used.read_text().splitlines() if self.used.exists() else []
        if self.child.returncode != 0 or len(lines) != 2:
            last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"status {self.child.returncode}"]
            raise Failed(f"{self.what}: {last[0]}")
        status, wall, user, system, rss, start, end = lines[0].split()
        own = float(user) + float(system)
        return Run(os.waitstatus_to_exitcode(int(status)), float(wall), float(user), float(system), max(cpu - own, 0.0),
                   int(rss) * 1024, int(lines[1]) * 1024, float(start), float(end), out, err, self.directory)


def run(bench, argv, side=None, hz=100, env=None, directory=None, limit_s=300, cwd=None):
    """Runs a command under a profiler (None: alone), and waits for all that it leaves behind. Raises Failed, with the last
    line that it wrote, if it could not be run; its status is for the caller to look at."""
    return _Started(bench, argv, side, hz, env, directory, cwd).ended(limit_s)


def at_once(bench, sides, cpu=None, limit_s=300):
    """Runs {name: (argv, side, hz, env)} all at once, each kept to the same processor (None: the last), which they have in
    turns of milliseconds: what the machine does meanwhile, it does to all. It is their CPU times that compare. They
    should have about the same work, as one that is alone at the end has the caches to itself. Profilers that stand around
    a command, and the driver, keep to the other processors. Returns {name: Run}."""
    all_cpus = os.sched_getaffinity(0)
    cpu = max(all_cpus) if cpu is None else cpu
    os.sched_setaffinity(0, all_cpus - {cpu} or all_cpus)
    started, runs, failed = {}, {}, None
    try:
        for name, (argv, side, hz, env) in sides.items():
            started[name] = _Started(bench, argv, side, hz, env, cpu=cpu)
    finally:
        for name, s in started.items():  # nothing of them is left to what comes next
            try:
                runs[name] = s.ended(limit_s)
            except Failed as e:
                failed = failed or e
        os.sched_setaffinity(0, all_cpus)
    if failed:
        raise failed
    return runs


def in_turn(sides, rounds, warm=True):
    """Calls each of {name: function} in each round, in an order that turns with the rounds: what the machine does
    meanwhile it does to all. Returns {name: [result of each round]}. With `warm` one round goes before, unmeasured."""
    names = list(sides)
    results = {name: [] for name in names}
    for i in range(-1 if warm else 0, rounds):
        turn = names[i % len(names):] + names[:i % len(names)]
        for name in turn:
            result = sides[name]()
            directory = getattr(result, "directory", None)
            if i >= 0:
                results[name].append(result)
            elif directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
    return results


@dataclass
class Figure:
    """The median of some values, with their quartiles: how far it is to be trusted."""
    median: float
    low: float
    high: float
    n: int
    values: list = field(repr=False, default_factory=list)

    @staticmethod
    def of(values):
        values = [v for v in values if not math.isnan(v)]
        if not values:
            return Figure(math.nan, math.nan, math.nan, 0)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return Figure(statistics.median(values), low, high, len(values), values)


def ratio(ours, theirs):
    """Round by round, so that a round in which the machine was slow is slow on both sides."""
    return Figure.of([a / b if b else math.nan for a, b in zip(ours, theirs)])


def ratio_of_extras(ours, theirs):
    """Differences of noisy numbers may be near zero in a round, so the ratio is that of their medians; its quartiles
    are those of the same for rounds that are drawn again."""
    draw, n, ratios = random.Random(1), len(ours), []  # the same rounds, the same figure
    for _ in range(RESAMPLED if n > 1 else 0):
        rounds = [draw.randrange(n) for _ in range(n)]
        below = statistics.median(theirs[i] for i in rounds)
        if below > 0:
            ratios.append(statistics.median(ours[i] for i in rounds) / below)
    below = statistics.median(theirs)
    if below <= 0:
        return Figure.of([])
    drawn = Figure.of(ratios or [statistics.median(ours) / below])
    return Figure(statistics.median(ours) / below, drawn.low, drawn.high, n)


def of(runs, name):
    """An attribute of each run."""
    return [getattr(r, name) for r in runs]
