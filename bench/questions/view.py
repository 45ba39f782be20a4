"""How long it takes to be shown a profile."""

import sys
from pathlib import Path

from driver import measure, profiles

QUESTION = ("time until the hottest functions are told: stile top and go tool pprof of the same file, perf report of "
            "perf's file of the same program")
PROGRAMS = Path(__file__).resolve().parent.parent / "programs"


def commands(bench):
    """{size: (command, rate)}: few stacks of a real program, and stacks that are all different."""
    return {"CPython": ([sys.executable, "-I", "-S", PROGRAMS / "mix.py", bench.scaled(30, 3)], 1000),
            "10 000s of different stacks": ([bench.program("split"), "paths", bench.scaled(4000, 100), 40], 10_000)}


def viewers(bench, section, command, hz):
    """{name: what runs it}. Each profile is made once, and read from then on."""
    profile = bench.run(command, bench.profilers["stile"], hz=hz).profile
    views = {"stile": [bench.stile, "top", profile]}
    if bench.tool("go"):
        # Its cache, and what it may look for on the net, are none of ours.
        home = {"HOME": str(bench.scratch), "GOFLAGS": "", "PPROF_TMPDIR": str(bench.scratch)}
        bench.run(["go", "tool", "pprof", "-top", profile], env=home)
        views["go tool pprof"] = ["go", "tool", "pprof", "-top", profile]
    else:
        home = {}
        section.without("go tool pprof", "go is not installed (Debian: golang-go)")
    for perf in bench.sides(section, ["perf fp"]):
        data = bench.run(command, perf, hz=hz).profile
        views["perf report"] = ["perf", "report", "--stdio", "--no-children", "-g", "none", "-i", data]
    stacks = len(profiles.read(profile, hz))
    return {name: lambda view=view: bench.run(view, env=home) for name, view in views.items()}, stacks


def ask(bench, section):
    for size, (command, hz) in commands(bench).items():
        sides, stacks = viewers(bench, section, command, hz)
        runs = measure.in_turn(sides, bench.rounds(9), warm=not bench.quick)
        for name in list(runs)[1:]:
            for what in ("wall", "cpu"):
                section.add(f"{size}: {what}", "stile top", name,
                            measure.ratio(measure.of(runs["stile"], what), measure.of(runs[name], what)),
                            distinct_stacks=stacks)
