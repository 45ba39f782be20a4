"""What a sample's walk costs by how deep the stack is, of which ten frames are new, and what barriers save of it."""

import os
import statistics
from functools import partial

from driver import deep, measure

QUESTION = "what a walk costs by the stack's depth, ten frames of it new, with barriers; and what they cost the program"
DEPTHS = [10, 30, 100, 300, 1000, 3000, 10_000]
COMPARED = 30
MODES = ["off", "auto", "on", "all"]
RATE = 1000
LEAST_WHOLE = 0.995
HITS_DEPTHS = [30, 1000]
HITS_MODES = ["on", "all"]
HITS_ALLOWED = 0.002

# Two at once on one processor, which have it in turns of a few milliseconds: what the machine does, it does to both. $0
# is preloaded; each has a directory and a mode; the command follows.
PAIR = """
library=$0 left=$1 left_mode=$2 right=$3 right_mode=$4; shift 4
one() (
    export LD_PRELOAD="$library" PROFILE="$1/profile.pb.gz" PROFILE_BARRIERS="$2"
    out=$1; shift 2
    exec "$@" >"$out/out"
)
one "$left" "$left_mode" "$@" & first=$!
one "$right" "$right_mode" "$@"
status=$?
wait $first && exit $status
"""


def environment(mode, walks):
    return {"PROFILE_CLOCK": "perf", "PROFILE_BARRIERS": mode, **({"PROFILE_DEBUG": "walktime=1"} if walks else {})}


def walked(bench, depth, mode, ms, cpu=()):
    argv = [bench.program("depth_stack"), "warm", depth, ms, *cpu]
    run = bench.run(argv, bench.profilers["stile"], hz=RATE, env=environment(mode, True))
    taken = deep.taken(run, depth)
    taken.ns = taken.walk / float(run.out.split()[2])
    return taken


def costs(bench, section):
    """{mode: [(depth, cycles)...]}, medians."""
    modes = bench.scaled(MODES, MODES[:2])
    cycles = {mode: [] for mode in modes}
    for depth in bench.scaled(DEPTHS, [COMPARED]):
        calls = {mode: partial(walked, bench, depth, mode, bench.scaled(700, 100)) for mode in modes}
        found = measure.in_turn(calls, bench.rounds(3), warm=False)
        walks = {mode: [t.walk for t in found[mode]] for mode in modes}
        for mode in modes:
            cycles[mode].append((depth, statistics.median(walks[mode])))
            share = measure.Figure.of([t.share for t in found[mode]])
            if mode == "off":
                continue  # there all frames of all samples go through the buffers, which have an end
            section.add(f"a walk, depth {depth}", f"stile, barriers {mode}", "barriers off",
                        measure.ratio(walks[mode], walks["off"]), cycles=walks[mode], cycles_off=walks["off"])
            section.add(f"whole stacks, depth {depth}", f"stile, barriers {mode}", "all stacks", share, target=LEAST_WHOLE,
                        least=True)
    return cycles


def against_shallow(section, cycles):
    """How the deepest compares with the one that is compared with."""
    base = dict(cycles["off"])[COMPARED]
    for mode, found in cycles.items():
        depth, deepest = found[-1]
        section.add(f"a walk, depth {depth}", f"stile, barriers {mode}", f"depth {COMPARED}",
                    measure.Figure.of([deepest / dict(found)[COMPARED]]))
    section.plot("depth", "A sample's walk at 1000 Hz, ten frames new", "depth of the stack (frames)",
                 f"of a walk of {COMPARED} without barriers",
                 {f"barriers {m}": [(d, c / base) for d, c in cycles[m]] for m in cycles})


# ---- what returning through stubs costs


def speed(directory):
    """Iterations in a nanosecond of CPU time."""
    try:
        n, ns, _ = map(float, (directory / "out").read_text().split())
    except (OSError, ValueError) as e:
        raise measure.Failed("a run of depth_stack has not told how fast it was") from e
    return n / ns


def pair(bench, depth, mode, ms):
    """Time of an iteration with / without barriers; both run at once."""
    directories = [bench.scratch / f"pair-{m}" for m in ("off", mode)]
    for d in directories:
        d.mkdir(exist_ok=True)
    stile = bench.profilers["stile"]
    cpu = max(os.sched_getaffinity(0))
    env = {"PROFILE_CLOCK": "perf", "PROFILE_HZ": RATE}
    argv = ["/bin/sh", "-c", PAIR, stile.variables["LD_PRELOAD"], directories[0], "off", directories[1], mode,
            bench.program("depth_stack"), "warm", depth, ms, cpu]
    bench.run(argv, env=env)
    off, on = map(speed, directories)
    return off / on


def walks_share(bench, depth, mode, ms):
    """The share of CPU time that walks take, were they as fast as the fastest run's: one that is preempted only takes
    longer."""
    cpu = [max(os.sched_getaffinity(0))]
    return min(walked(bench, depth, mode, ms, cpu).ns for _ in range(bench.scaled(3, 1))) * RATE / 1e9


def hits(bench, section):
    ms = bench.scaled(400, 50)
    for depth in bench.scaled(HITS_DEPTHS, [30]):
        off = walks_share(bench, depth, "off", ms)
        for mode in bench.scaled(HITS_MODES, ["all"]):
            walks = walks_share(bench, depth, mode, ms) - off
            slower = [(pair(bench, depth, mode, ms) - 1 - walks) / HITS_ALLOWED for _ in range(bench.rounds(11))]
            section.add(f"slower than with barriers off, beyond the walks, depth {depth}", f"stile, barriers {mode}",
                        f"{100 * HITS_ALLOWED} % allowed", measure.Figure.of(slower), target=1.0, walks=walks)


def ask(bench, section):
    against_shallow(section, costs(bench, section))
    hits(bench, section)
