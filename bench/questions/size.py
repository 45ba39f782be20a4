"""How large profiles are."""

import gzip
import sys
from pathlib import Path

from driver import measure, profiles

QUESTION = "bytes of the profile's file per sample in it, and in all, of the same program at the same rate"
PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
RATES = [100, 1000]
DEPTH = 200


def commands(bench):
    split, ms = bench.program("split"), bench.scaled(1000, 50)
    return {"CPython": [sys.executable, "-I", "-S", PROGRAMS / "mix.py", bench.scaled(30, 3)],
            f"{DEPTH} calls deep": [split, "deep", ms, DEPTH],
            f"paths of {DEPTH} calls, all different": [split, "paths", ms, DEPTH]}


def ask(bench, section):
    sides = profiles.readable(bench, section, ["stile", "gperftools", "perf fp", "perf dwarf"])
    for program, command in list(commands(bench).items())[:2 if bench.quick else None]:
        for hz in [1000] if bench.quick else RATES:
            def once(side, command=command, hz=hz):
                run = bench.run(command, side, hz=hz)
                found = run.profile_bytes, profiles.count(run.profile, hz), packed(run)
                run.forget()
                return found
            found = measure.in_turn({p.name: lambda p=p: once(p) for p in sides}, bench.rounds(3), warm=False)
            add(section, f"{program}, {hz} Hz", found)


def packed(run):
    """Bytes of the file as gzip has it, which Stile's is already."""
    data = run.profile.read_bytes()
    return len(data) if data[:2] == b"\x1f\x8b" else len(gzip.compress(data, 6))


def add(section, what, found):
    def each(name):
        return [size / count if count else float("nan") for size, count, _ in found[name]]
    for name in list(found)[1:]:
        section.add(f"{what}: bytes per sample", "stile", name, measure.ratio(each("stile"), each(name)),
                    ours=each("stile"), theirs=each(name))
        section.add(f"{what}: the file", "stile", name,
                    measure.ratio([size for size, _, _ in found["stile"]], [size for size, _, _ in found[name]]))
        section.add(f"{what}: the file, both gzipped", "stile", name,
                    measure.ratio([size for _, _, size in found["stile"]], [size for _, _, size in found[name]]))
