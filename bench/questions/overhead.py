"""What sampling costs real programs, and what of that is the clock's."""

import statistics
import subprocess
import sys
from pathlib import Path

from driver import measure

QUESTION = ("CPU time of real programs while they are profiled, and their extra CPU time beside that of an empty handler on "
            "the same clock (the floor). What is compared runs at once on one processor; only wall times are taken in turn. "
            "What is promised is of the long work, as a collector's reading of files, rules and names come once")
PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
AT_MOST = 10_000
CONTROL = "plain again"
PEERS = "peers by path"
# What runs at once with "plain": (samples a second, sides, how often). Of perf only one of a kind writes beside the others.
SHORT = [(AT_MOST, [CONTROL, "floor", "stile"], 5),
         (1000, ["floor", "stile", "perf fp", "gperftools"], 3),
         (100, ["floor", "stile", "perf fp", "gperftools"], 3),
         (AT_MOST, ["perf fp", "perf dwarf"], 3),
         (1000, ["perf dwarf"], 3),
         (AT_MOST, [PEERS], 3), (1000, [PEERS], 3), (100, [PEERS], 3)]
LONG = [(AT_MOST, ["floor", "stile"], 5), (1000, ["stile", "perf fp"], 3)]
WALL = [("stile", 100), ("stile", 1000), ("stile", AT_MOST), ("perf fp", 1000)]
NOT_ASKED = {("perf dwarf", 100): "what it costs there is in the noise",
             ("gperftools", AT_MOST): "it gives no more than the kernel's tick rate, as at 1000 Hz"}


def cpython(bench, long):
    """(The command, its variables.) Strings have the same hashes in each run."""
    rounds = bench.scaled(120 if long else 40, 4)
    return [sys.executable, "-s", "-S", PROGRAMS / "mix.py", rounds], {"PYTHONHASHSEED": "0", "PYTHONPATH": ""}


def cc1plus(bench, long):
    """The compiler proper, on a source that the preprocessor is done with."""
    if not bench.tool("g++"):
        raise measure.Failed("g++ is not installed (Debian: g++)")
    proper = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True).stdout
    source = bench.scratch / "source.cc"
    preprocessed = bench.scratch / f"source-{long}.ii"
    text = "int f(int a) { return a + 1; }\n" if bench.quick else (PROGRAMS / "headers.cc").read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    subprocess.run(["g++", "-std=c++17", "-E", *(["-DLONG"] if long else []), source, "-o", preprocessed], check=True)
    return [proper.strip(), "-std=c++17", "-O2", "-quiet", preprocessed, "-o", "/dev/null"], {}


def extra(runs, name, attribute="cpu"):
    """CPU time beyond the plain run of the same round, as a share of that."""
    return [getattr(r, attribute) / p.cpu - 1 for r, p in zip(runs[name], runs["plain"])]


def with_stack(path):
    """Of the time in Stile's profile, the share that has a whole stack: what is cheap since it was left out is seen."""
    import pprof  # pylint: disable=import-outside-toplevel
    return 1 - pprof.bracketed_share([pprof.load(path)])


def rounds_of(bench, work, names, hz, rounds):
    """{name: [run of each round]} of those that this machine has, "plain" among them; of Stile's also `whole`."""
    argv, env = work
    present = {name: p for name, p in bench.profilers.items() if not p.absent}
    if names == [PEERS]:
        names = [p.name for p in bench.by_path()]
    sides = {"plain": None, **{name: present.get(name) for name in names if name in present or name == CONTROL}}
    if len(sides) == 1:
        return {}
    order, found = list(sides), {name: [] for name in sides}
    for i in range(bench.rounds(rounds)):
        turn = order[i % len(order):] + order[:i % len(order)]  # who comes first has the processor alone for a moment
        runs = bench.at_once({name: (argv, sides[name], hz, env) for name in turn})
        for name, run in runs.items():
            run.whole = with_stack(run.profile) if name == "stile" else None
            found[name].append(run.forget())
    return found


def add_promises(section, what, hz, runs, promised):
    if "floor" in runs and "stile" in runs and hz > 100:
        floor = extra(runs, "floor")
        for of_whom, attribute, target in (("the program's", "cpu", 1.1), ("with the collector's", "total", 1.3)):
            section.add(f"{what}: extra CPU, {of_whom}", "stile", "floor's extra",
                        measure.ratio_of_extras(extra(runs, "stile", attribute), floor),
                        stile=measure.of(runs["stile"], attribute), floor=measure.of(runs["floor"], "cpu"),
                        plain=measure.of(runs["plain"], "cpu"), **({"target": target} if promised and hz == AT_MOST else {}))
    if "perf fp" in runs and "stile" in runs and hz == 1000:
        section.add(f"{what}: CPU, all that it takes", "stile", "perf fp, with perf's",
                    measure.ratio(measure.of(runs["stile"], "total"), measure.of(runs["perf fp"], "total")),
                    **({"target": 1.0} if promised else {}))
    if hz == AT_MOST and "stile" in runs:
        section.add(f"{what}: time with a whole stack", "stile", "all time",
                    measure.Figure.of(measure.of(runs["stile"], "whole")))


def add_shares(section, what, runs):
    plain = measure.of(runs["plain"], "cpu")
    for name in list(runs)[1:]:
        section.add(f"{what}: CPU", name, "plain", measure.ratio(measure.of(runs[name], "cpu"), plain),
                    note="how far from 1 the method is" if name == CONTROL else "")
        if name == "stile" or name.startswith("perf"):  # what works beside the program
            section.add(f"{what}: CPU beside the program", name, "plain",
                        measure.ratio(measure.of(runs[name], "beside"), plain))


def walls(bench, section, program, work):
    """In turn, with the processors to themselves."""
    argv, env = work
    sides = {"plain": lambda: bench.run(argv, env=env).forget()}
    for name, hz in bench.scaled(WALL, WALL[:1]):
        side = bench.profilers[name]
        if not side.absent:
            sides[name, hz] = lambda side=side, hz=hz: bench.run(argv, side, hz=hz, env=env).forget()
    runs = measure.in_turn(sides, bench.rounds(3), warm=False)
    for name, hz in list(runs)[1:]:
        section.add(f"{program}, short, {hz} Hz: wall, in turn", name, "plain",
                    measure.ratio(measure.of(runs[name, hz], "wall"), measure.of(runs["plain"], "wall")))


def ask_of(bench, section, program, command):
    works = {"long": (command(bench, True), LONG), "short": (command(bench, False), SHORT)}
    if bench.quick:
        works = {"short": (works["short"][0], [SHORT[0], LONG[1], (AT_MOST, [PEERS], 1)])}
    lines = {}
    for length, (work, groups) in works.items():
        bench.run(work[0], env=work[1]).forget()  # its files are in memory
        for hz, names, rounds in groups:
            try:
                runs = rounds_of(bench, work, names, hz, rounds)
            except measure.Failed as e:
                if names != [PEERS]:
                    raise
                section.without(f"peers by path at {hz} Hz, {program}", str(e))
                continue
            if runs:
                what = f"{program}, {length}, {hz} Hz"
                add_promises(section, what, hz, runs, length == "long")
                add_shares(section, what, runs)
                if length == "short":
                    add_lines(lines, hz, runs)
    walls(bench, section, program, works["short"][0])
    section.plot(f"overhead-{program}", f"Extra CPU time of {program}", "samples asked for, per second",
                 "% of the plain run", {name: sorted(points) for name, points in lines.items()})


def add_lines(lines, hz, runs):
    kinds = [(name, name, "cpu") for name in runs if name not in ("plain", CONTROL)]
    for label, name, attribute in kinds + [("stile with its collector", "stile", "total")] * ("stile" in runs):
        share = measure.Figure.of(extra(runs, name, attribute)).median
        lines.setdefault(label, []).append((hz, max(100 * share, 0.01)))


def ask(bench, section):
    bench.sides(section)  # says which are not here
    for (name, hz), why in NOT_ASKED.items():
        section.without(f"{name} at {hz} Hz", why)
    for program, command in (("CPython", cpython), ("cc1plus", cc1plus)):
        try:
            ask_of(bench, section, program, command)
        except (measure.Failed, subprocess.CalledProcessError) as e:
            section.failed(program, str(e))
