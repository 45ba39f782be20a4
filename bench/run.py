#!/usr/bin/python3
"""`./dev bench`: asks each question of Stile and of each peer that this machine has, in turn, on the same work.

A question is a module in questions/: QUESTION is its text, `ask(bench, section)` measures and adds rows to the section."""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "e2e")]

# pylint: disable=wrong-import-position
from driver import machine, measure, profilers, report  # noqa: E402

QUESTIONS = ["sample", "depth", "walk", "clocks", "truth", "overhead", "lock", "startup", "finish", "memory", "size",
             "view", "block", "scale"]
PEER_LIMIT_S = 20  # for a program of 50 ms of CPU time
PRELOAD_FAILED = b"from LD_PRELOAD cannot be preloaded"
# What results call sides that are no profilers, or none of the driver's.
RESERVED = ["plain", "Go", "stile, PROFILE unset", "stile, without perf"]


class Bench:
    """What a question is asked with."""

    def __init__(self, build, out, rounds, quick, peers):
        self.build, self.out, self.quick = build, out, quick
        self._rounds = rounds
        self.profilers = {**profilers.known(build), **peers}
        self.scratch = Path(tempfile.mkdtemp(prefix="stile-bench-"))
        # Nothing of a profiler's own, or of what the caller has set for one, gets into a run by itself.
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("PROFILE", "STILE_", "CPUPROFILE", "FLOOR_")) and k != "LD_PRELOAD"}
        self.stile = build / "bin" / "stile"

    def rounds(self, usual):
        """How often each side is run: what the user said, or what the question needs; once when only trying it out."""
        return self._rounds or (1 if self.quick else usual)

    def scaled(self, usual, quick):
        """How much work there is: little when only trying it out."""
        return quick if self.quick else usual

    def program(self, name):
        """A program that was built to be measured."""
        path = self.build / "bench" / name
        if not path.exists():
            raise measure.Failed(f"{path} is not built")
        return path

    def tool(self, name):
        """A program of the system, or None."""
        return shutil.which(name)

    def sides(self, section, names=None):
        """The profilers of these names (all: None) that this machine has; the section is told of those that it has not."""
        found = []
        for name in self.profilers if names is None else names:
            profiler = self.profilers.get(name)
            if profiler is None:
                continue
            if profiler.absent:
                section.without(name, profiler.absent)
            else:
                found.append(profiler)
        return found

    def by_path(self):
        """The profilers that --peer has named, whether they can be used or not."""
        known = profilers.known(self.build)
        return [p for name, p in self.profilers.items() if name not in known]

    def peers_by_path(self, section):
        return self.sides(section, [p.name for p in self.by_path()])

    def try_peers(self):
        """One by path under which programs do not run as they do alone is left out, or it would take all questions with
        it."""
        for peer in self.by_path():
            try:
                self.run([self.program("usage"), "threads", 1, 50], peer, limit_s=PEER_LIMIT_S).forget()
            except measure.Failed as e:
                peer.absent = str(e)

    def run(self, argv, side=None, **how):
        """What ended badly has no figures."""
        return self._check(measure.run(self, argv, side, **how), argv, side)

    @staticmethod
    def _check(run, argv, side):
        name = side.name if side else "plain"
        if run.status != 0:
            raise measure.Failed(f"{Path(argv[0]).name}, {name}: ended with {run.status}")
        if PRELOAD_FAILED in run.err:  # the loader goes on without
            raise measure.Failed(f"{Path(argv[0]).name}, {name}: a library cannot be preloaded")
        if side and side.writes() and run.profile_bytes == 0:  # what does nothing costs nothing
            raise measure.Failed(f"{Path(argv[0]).name}, {name}: it wrote no profile")
        return run

    def at_once(self, sides, **how):
        """As `run`, of all sides."""
        runs = measure.at_once(self, sides, **how)
        for name, (argv, side, _, _) in sides.items():
            self._check(runs[name], argv, side)
        return runs


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="some of: " + ", ".join(QUESTIONS) + "; all if none")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build-release", help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=LIBRARY[,VARIABLE=VALUE]...",
                        help="a profiler that is preloaded, with its environment; in values {out} is the profile's path, "
                             "{hz} the rate")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="of each side, instead of what a question takes")
    parser.add_argument("--quick", action="store_true", help="one run of little work, to see that all goes; its figures say nothing")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="where results.json, results.md and plots go "
                                                                      "(build-release/bench/results)")
    a = parser.parse_args()
    for name in a.questions:
        if name not in QUESTIONS:
            parser.error(f"there is no question {name}; there are {', '.join(QUESTIONS)}")
    if a.runs < 0:
        parser.error("--runs takes a number from 1 on")
    try:
        a.peers = {p.name: p for p in map(profilers.peer, a.peer)}
    except profilers.BadPeer as e:
        parser.error(str(e))
    taken = [p for p in a.peers if p in RESERVED or p in profilers.known(a.build)]
    if taken:
        parser.error(f"--peer {taken[0]}: that name is taken; take another")
    if len(a.peers) < len(a.peer):
        parser.error("--peer: two of the same name")
    if not (a.build / "lib" / "libstile.so").exists():
        parser.error(f"{a.build} has no libstile.so; ./dev bench builds it")
    a.build = a.build.resolve()
    if set(str(a.build)) & set(" :"):
        parser.error(f"{a.build}: from a path with a space or a colon in it nothing can be preloaded")
    os.environ["STILE_BUILD_DIR"] = str(a.build)
    a.out = a.out or a.build / "bench" / "results"
    return a


def write(out, described, sections):
    """After each question: what was measured is not lost with what comes after it."""
    report.write_json(out / "results.json", described, sections)
    report.write_markdown(out / "results.md", described, sections)


def main():
    a = arguments()
    try:
        a.out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        sys.exit(f"bench: {a.out}: {e.strerror}")
    if not os.access(a.out, os.W_OK | os.X_OK):
        sys.exit(f"bench: {a.out}: cannot be written to")
    measure.become_subreaper()
    bench = Bench(a.build, a.out, a.runs, a.quick, a.peers)
    described, noise, sections = machine.described(), machine.Noise(), []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as if interrupted
    try:
        bench.try_peers()
        for name in a.questions or QUESTIONS:
            module = importlib.import_module(f"questions.{name}")
            section = report.Section(name, module.QUESTION)
            sections.append(section)
            try:
                module.ask(bench, section)
            except measure.Failed as e:
                section.failed("the rest", str(e))
            except Exception as e:  # pylint: disable=broad-exception-caught  # the other questions go on
                traceback.print_exc()
                section.failed("the rest", f"{type(e).__name__}: {e}")
            print(section.text() + "\n", flush=True)
            for plot in section.plots:
                report.write_plot(a.out / f"{plot.name}.svg", plot)
            write(a.out, described, sections)
    except KeyboardInterrupt:
        print(f"bench: interrupted; of the questions before, results.json, results.md and plots are in {a.out}",
              file=sys.stderr)
        return 130
    except OSError as e:
        sys.exit(f"bench: {e}")
    finally:
        measure.end_all()
        shutil.rmtree(bench.scratch, ignore_errors=True)
    described["noise"] = noise.told()
    write(a.out, described, sections)
    print("\n".join(f"{k}: {v}" for k, v in described.items()))
    print(f"results.json, results.md and plots are in {a.out}")
    missed = [r for s in sections for r in s.rows if r.met is False]
    if missed and not a.quick:
        print(f"{len(missed)} of the targets were missed: " + ", ".join(f"{r.what} ({r.side})" for r in missed))
    return 1 if any(s.broken for s in sections) else 0


if __name__ == "__main__":
    sys.exit(main())
