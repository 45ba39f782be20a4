"""How far profiles are from what the program's own clocks say."""

import json
import math

from driver import measure, profiles

QUESTION = ("error of the shares of functions of known CPU time, by what as many random samples as were asked for would "
            "err (1: no worse than chance must be)")
SPLITS = {"shares": "50/30/20 %, one thread", "threads": "skew, 8 threads at once, 1:2:...:8",
          "pool": "50/30/20 %, threads of 0.02-0.13 ms", "kernel": "50/30/20 %, the 30 in system calls"}
RATES = [100, 1000]


def errors(run, stacks, hz):
    """(root mean square error of the shares in standard deviations of random sampling, the largest in points). Shares
    of a profile that has no sample in any part are 0."""
    said = json.loads(run.out)
    parts, told = said["parts"], dict.fromkeys(said["parts"], 0)
    for s in stacks:
        for part in parts:
            if part in s.names or f"main.{part}" in s.names:
                told[part] += s.ns
    n, off, points, all_told = said["cpu"] / 1e9 * hz, [], [], sum(told.values()) or 1
    for part, ns in parts.items():
        share = ns / sum(parts.values())
        points.append(told[part] / all_told - share)
        off.append(points[-1] ** 2 / (share * (1 - share) / n))
    return math.sqrt(sum(off) / len(off)), 100 * max(map(abs, points))


def profiled(bench, split, side, hz, ms, symbols):
    run = bench.run([bench.program("split"), split, ms], side, hz=hz)
    found = errors(run, profiles.read(run.profile, hz, symbols), hz)
    run.forget()
    return found


def go_profiled(bench, split, hz, ms):
    path = bench.scratch / "go.pb.gz"
    run = bench.run([bench.program("split_go"), split, ms, path, hz])
    return errors(run, profiles.read(path, hz), hz)


def ask(bench, section):
    ms = bench.scaled(1000, 60)
    symbols = profiles.symbols_of(bench.program("split"))
    named = profiles.readable(bench, section, ["stile", "gperftools", "perf fp"])
    has_go = (bench.build / "bench" / "split_go").exists()
    if not has_go:
        section.without("Go", "there was no go when this was built (Debian: golang-go)")
    for split, words in SPLITS.items():
        for hz in [1000] if bench.quick else RATES:
            sides = {p.name: lambda p=p, split=split, hz=hz: profiled(bench, split, p, hz, ms, symbols) for p in named}
            if has_go:
                sides["Go"] = lambda split=split, hz=hz: go_profiled(bench, split, hz, ms)
            add(section, f"{words}, {hz} Hz", measure.in_turn(sides, bench.rounds(7), warm=False))


def add(section, what, found):
    for name, runs in found.items():
        points = [p for _, p in runs]
        section.add(what, name, "chance", measure.Figure.of([e for e, _ in runs]),
                    note=f"{measure.Figure.of(points).median:.1f} points at most", points=points)
