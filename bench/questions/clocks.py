"""Whether a profile holds as many samples as were asked for, and all of the CPU time."""

import json
import re

from driver import measure, profiles

QUESTION = ("samples that a profile holds, by those that were asked for; the time that it holds, by the program's CPU "
            "clock")
RATES = [100, 250, 1000, 10_000, 20_000]
TOLD = [100, 1000, 10_000, 20_000]  # the others are in the plot
PLACES = re.compile(r" ticks in (\d+)")
PROGRAMS = [["threads", "1", "500"], ["threads", "64", "50"], ["pool", "3000", "2", "200"], ["calls", "500"],
            ["faults", "500"], ["blocked", "1000"], ["sleeper", "100"]]
QUICK_PROGRAMS = [["threads", "2", "50"], ["calls", "50"]]


def cpu_s(run):
    return json.loads(run.out)["process"] / 1e9


def places(run):
    """Stile's samples may stand for several ticks; how many signals it took is said in a comment."""
    import pprof  # pylint: disable=import-outside-toplevel
    found = [PLACES.search(c) for c in pprof.load(run.profile).comments]
    return sum(int(m[1]) for m in found if m)


def delivered(bench, section, read, threads):
    command = [bench.program("usage"), "threads", threads, bench.scaled(500, 50)]
    stile = bench.profilers["stile"]
    sides = {p.name: (p, {}) for p in read}
    sides["stile, without perf"] = (stile, {"PROFILE_CLOCK": "timer"})
    lines = {name: [] for name in sides}
    for hz in [1000] if bench.quick else RATES:
        def once(side, hz=hz):
            run = bench.run(command, side[0], hz=hz, env=side[1])
            asked = cpu_s(run) * hz
            if side[0] is stile:
                return profiles.count(run.profile, hz) / asked, places(run) / asked
            return profiles.count(run.profile, hz) / asked, None
        got = measure.in_turn({name: lambda side=side: once(side) for name, side in sides.items()}, bench.rounds(3),
                              warm=False)
        for name, found in got.items():
            counted = measure.Figure.of([f[0] for f in found])
            lines[name].append((hz, counted.median))
            what = f"{threads} thread{'s' if threads > 1 else ''}, {hz} Hz"
            if hz in TOLD:
                section.add(f"{what}: samples", name, "asked for", counted)
            if hz in TOLD and found[0][1] is not None:
                section.add(f"{what}: places of their own", name, "asked for", measure.Figure.of([f[1] for f in found]))
    return lines


def sums(bench, section, sides):
    """All of the CPU time is in the profile: ended threads, blocked signals, the kernel's."""
    for words in QUICK_PROGRAMS if bench.quick else PROGRAMS:
        for hz in [1000] if bench.quick else [100, 10_000]:
            def once(side, words=words, hz=hz):
                run = bench.run([bench.program("usage"), *words], side, hz=hz)
                return sum(s.ns for s in profiles.read(run.profile, hz)) / 1e9 / cpu_s(run)
            got = measure.in_turn({p.name: lambda p=p: once(p) for p in sides}, bench.rounds(3), warm=False)
            for name, shares in got.items():
                section.add(f"usage {' '.join(words)}, {hz} Hz: time", name, "CPU clock", measure.Figure.of(shares))


def ask(bench, section):
    read = profiles.readable(bench, section, ["stile", "gperftools", "perf fp"])
    for threads in [1] if bench.quick else [1, 2]:
        lines = delivered(bench, section, read, threads)
        section.plot(f"clocks-{threads}", f"Samples taken, {threads} thread{'s' if threads > 1 else ''}",
                     "samples asked for, per second", "share that was taken", lines)
    sums(bench, section, read)
