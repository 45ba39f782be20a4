"""Rounds of the torture program under the library, and under the one with faults injected; what has to hold after each.

    torture.py [MINUTES]    rounds for so long, with what chance has them do; a table of what they did at the end
"""

import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import harness
import pprof

FAULTY = harness.BUILD / "tests" / "faults" / "libstile_faulty.so"
FAULTS = ["lock", "stubs", "slot", "gone", "rule", "row", "ring", "block",
          "owner-sample", "owner-barriers", "owner-remove", "owner-wait", "owner-executes"]  # as faults.h has them
BUSY = ("recursions", "exceptions", "jumps", "escapes", "throws", "backtraces")  # needs no collector's answer
DONE = re.compile(r"done: (.*); cpu (\d+) ns")
REASON = re.compile(r"(\[[a-z ]+\]) (\d+) ticks")
TOTALS = ["samples", "placed", "hit", "retired", "restored", "saved", "frames", "locked"]
HUNG = "hung"
CLOCK_NS = 5000000  # that the end of a process takes after its own look at its clock


def report(path):
    """What the library says of its faults: by kind, of the process itself and of its children."""
    data = struct.unpack(f"<{1 + 2 * len(FAULTS)}Q", path.read_bytes())
    return dict(zip(FAULTS, data[1:])), dict(zip(FAULTS, data[1 + len(FAULTS):]))


def reasons(p):
    """Ticks by reason, as the comments have them."""
    return {k: int(n) for c in p.comments if c.startswith("not whole: ") for k, n in REASON.findall(c)}


class Round:
    """One run. What is wrong with it is in `problems`; everything that it left is in its directory."""

    def __init__(self, directory, seconds, seed, hz, mode, faults="", kinds=(), env=None):
        self.directory, self.seconds, self.mode, self.faults = Path(directory), seconds, mode, faults
        self.name = f"seed {seed}, {hz} Hz, {mode}, {' '.join(kinds) or 'all'}, {faults or 'no faults'}"
        self.problems, self.told, self.reasons, self.injected, self.by_children = [], {}, {}, {}, {}
        self.status, self.done, self.comments, self.children = None, "", [], 0
        self.samples, self.cpu_ns, self.ns = 0, 0, 0
        self.out = self.directory / "out.pb.gz"
        self.argv = [harness.program("torture"), seconds, seed, harness.program("torture_plugin.so"), *kinds]
        self.env = {"PROFILE_BARRIERS": mode, harness.MARK: f"/nonexistent/{uuid.uuid4().hex}", **(env or {})}
        if faults:
            self.env.update({"LD_PRELOAD": FAULTY, "PROFILE_COLLECTOR": harness.STILE,
                             "STILE_FAULTS": f"seed={seed},{faults}",
                             "STILE_FAULTS_REPORT": self.directory / "faults"})
        self._run(hz)

    def _run(self, hz):
        with harness.Program(self.argv, profile=self.out, hz=hz, env=self.env, cwd=self.directory,
                             preexec_fn=cores) as app:
            if harness.wait_until(app.poll, 3 * self.seconds + 90, 0.05) is None:
                self.status = HUNG
                self.problems.append(HUNG)
                self._gdb("stacks", "-p", str(app.pid))
                app.kill()
            else:
                self.status = app.result.status
                said, err = app.result.out.decode(), app.result.err.decode(errors="replace")
                if self.status != 0 or err:
                    self.problems.append(f"status {self.status}: {err.strip()}")
                try:
                    self._look(said)
                    self._look_at_children()
                except AssertionError as e:
                    self.problems.append(str(e))
        mark = self.env[harness.MARK]
        if not harness.wait_until(lambda: not harness.marked(mark), 60, 0.05):
            self.problems.append(f"left behind: {harness.marked(mark)}")
            for p in harness.marked(mark):
                harness.end_process(p)
        for core in self.directory.glob("core*"):
            self.problems.append(f"there is a {core.name}")
            self._gdb(f"{core.name}.stacks", harness.program("torture"), str(core))

    def _gdb(self, name, *target):
        with open(self.directory / name, "w", encoding="utf-8") as to:
            subprocess.run(["gdb", "-nx", "-batch", *target, "-ex", "info registers", "-ex", "x/6i $pc",
                            "-ex", "thread apply all bt 60"], stdout=to, stderr=to, stdin=subprocess.DEVNULL,
                           timeout=120, check=False)

    def _look(self, said):
        done = DONE.search(said)
        if not done:
            self.problems.append(f"it says {said!r}")
            return
        self.done, self.cpu_ns = done[1], int(done[2])
        p = pprof.load_ends(self.out)
        assert not pprof.problems(p), pprof.problems(p)
        self.samples, self.ns, self.comments = p.count, p.ns, p.comments
        self.told, self.reasons = pprof.barriers(p), reasons(p)
        if self.faults:
            self.injected, self.by_children = report(self.directory / "faults")
        if abs(self.ns - self.cpu_ns) > self.cpu_ns // 100 + CLOCK_NS:
            self.problems.append(f"{self.ns} ns in the profile, {self.cpu_ns} by the clock")
        if not self.told or self.told["off"]:
            self.problems.append(f"barriers: {self.told}")
        elif self.mode != "auto" and not re.search("stubs|row", self.faults):  # a wrong row may be every stack's
            idle = [w for w in ("placed", "hit", "saved") if self.told[w] == 0]
            if idle:
                self.problems.append(f"none {idle}")
        if self.reasons.get("[stack locked]", 0) != self.injected.get("lock", 0):
            self.problems.append(f"locked {self.reasons}, injected {self.injected}")

    def _look_at_children(self):
        for path in self.directory.glob("out.*.pb.gz"):
            if path != self.out:
                self.children += 1
                pprof.load_ends(path)

    def __str__(self):
        told = " ".join(f"{w} {self.told.get(w, 0)}" for w in ("placed", "hit", "retired", "restored", "locked"))
        return f"{self.name}: {self.samples} samples, {told}, {self.children} children; {self.problems or 'right'}"


def cores():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)


def some_faults(chance):
    """None in one round of three, one kind in another, all kinds in the third; seldom and often."""
    rates = {"lock": (20, 500), "stubs": (1, 3000), "slot": (3, 100), "gone": (3, 200), "rule": (50, 5000),
             "row": (20, 2000), "ring": (20, 500), "block": (2, 100)}
    kinds = chance.choice([[], [chance.choice(FAULTS)], FAULTS])
    return ",".join(f"{k}={chance.randint(*rates[k])}" for k in kinds)


def main(minutes):
    kept = Path(tempfile.mkdtemp(prefix="stile-torture-"))
    seed = int(time.time())
    chance = random.Random(seed)
    print(f"torture: {minutes} minutes, seed {seed}, in {kept}", flush=True)
    end, rounds, failed = time.monotonic() + 60 * minutes, 0, []
    totals, injected, things = Counter(), Counter(), Counter()
    while rounds == 0 or time.monotonic() < end:
        directory = kept / f"round-{rounds}"
        directory.mkdir()
        kinds = chance.choice([(), (), BUSY])  # the busy ones make large files
        wanted = chance.randint(10, 20) if kinds else chance.randint(20, 50)
        seconds = max(5, min(wanted, round(end - time.monotonic())))
        r = Round(directory, seconds, seed + rounds, chance.choice([10000, 20000]),
                  chance.choice(["all", "all", "all", "auto", "on"]), some_faults(chance), kinds)
        rounds += 1
        print(r, flush=True)
        totals.update({"samples": r.samples, **{w: r.told.get(w, 0) for w in TOTALS[1:]}})
        totals.update({"lost": r.reasons.get("[buffer full]", 0), "children": r.children, "cpu s": r.cpu_ns / 1e9})
        injected.update(r.injected)
        injected.update(r.by_children)
        things.update({k: int(n) for k, n in re.findall(r"(\w+) (\d+)", r.done)})
        if r.problems:
            failed.append(r)
        else:
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
    hangs = sum(r.status == HUNG for r in failed)
    print(f"\n{'rounds':12}{rounds:14}\n{'failed':12}{len(failed):14}\n{'crashes':12}"
          f"{sum(r.status not in (0, HUNG) for r in failed):14}\n{'hangs':12}{hangs:14}")
    for title, table in (("", totals), ("faults injected", injected), ("done", things)):
        print(f"\n{title}" if title else "")
        for word, n in table.items():
            print(f"{word:12}{round(n):14}")
    if not failed:
        kept.rmdir()
    for r in failed:
        print(f"\nfailed, in {r.directory}: {r}")
    return bool(failed)


if __name__ == "__main__":
    os.environ.setdefault("DEBUGINFOD_URLS", "")
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5))
