"""What one sample costs, signal to return, beside a signal whose handler does nothing."""

import statistics
from functools import partial

from driver import deep, measure

QUESTION = "what a signal with a profiler's handler takes, of one with an empty handler"
DEPTHS = [10, 30, 200, 1000, 10_000]
ALLOWED = {30: 1.15, 1000: 1.25, 10_000: 1.3}
LEAST_WHOLE = 0.995
GPERFTOOLS_DEPTH = 254
SAYS_NOTHING = 0.9  # if less of the stacks are whole, so is what they cost
CLOCK_HZ = 10_000
WAYS = {"warm": "batches", "cold": "ticks"}


def cycles(run):
    """(of the call, of an empty handler's signal, of the profiler's), medians of the rounds."""
    rows = [[float(x) for x in line.split()] for line in run.out.decode().splitlines()]
    if not rows or any(len(r) != 3 for r in rows):
        raise measure.Failed("depth_stack has not told what its signals took")
    return [statistics.median(column) for column in zip(*rows)]


def stile_sides(bench):
    stile = bench.profilers["stile"]
    for mode in ("auto", "off"):
        env = {"PROFILE_CLOCK": "timer", "PROFILE_BARRIERS": mode}
        yield (f"stile, barriers {mode}", partial(bench.run, side=stile, hz=20_000, env=env),
               lambda run, frames, _: deep.taken(run, deep.argument(frames)).share)


def libunwind_side(bench):
    library = bench.build / "bench" / "peers" / "unw_backtrace.so"
    out = bench.scratch / "unw_backtrace"
    env = {"LD_PRELOAD": library, "STILE_BENCH_HZ": 1000, "STILE_BENCH_OUT": out}

    def run(argv):
        out.unlink(missing_ok=True)  # what the last run has told is not this one's
        return bench.run(argv, env=env)

    def share(_run, _frames, least):
        walks, _, found = map(int, out.read_text().split())
        return min(1.0, found / walks / least)
    return ("unw_backtrace alone", run, share)


def sides(bench, section, frames):
    """(name, how a command is run, the share of whole stacks of a run)."""
    found = list(stile_sides(bench))
    for p in bench.sides(section if frames == 30 else _Quiet(), ["gperftools"]):
        if frames <= GPERFTOOLS_DEPTH:
            found.append((p.name, partial(bench.run, side=p, hz=100),
                          lambda run, _, least: deep.of_gperftools(run, least)))
    found.append(libunwind_side(bench))
    return found


class _Quiet:
    """What is not here is said once."""

    def without(self, *_):
        """Said already."""


def measured(how, share, argv, frames):
    run = how(argv)
    call, empty, ours = cycles(run)
    # In between the clock's own ticks come where the stack is shallower; only Stile's are told apart.
    changing = min(deep.NEW, deep.argument(frames) - 1)
    least = frames - (deep.ABOVE + changing if argv[1].startswith("ticks") else 0)
    return {"ratio": (ours - call) / (empty - call), "whole": share(run, frames, least), "call": call, "empty": empty,
            "handler": ours}


def report(section, way, frames, name, found):
    """Whether there was anything to report."""
    promised = name == "stile, barriers auto" and way == "warm"
    whole = statistics.median(r["whole"] for r in found)
    note = f"{100 * whole:.1f} % of the stacks whole"
    if whole < SAYS_NOTHING and name == "stile, barriers off":
        section.without(f"{name}, {way}, depth {frames}", f"{note}: the rest found no room in the buffers")
        return False
    target = {"target": ALLOWED[frames]} if promised and frames in ALLOWED else {}
    middle = {k: statistics.median(r[k] for r in found) for k in ("whole", "call", "empty", "handler")}
    section.add(f"{way}, depth {frames}", name, "empty handler", measure.Figure.of([r["ratio"] for r in found]),
                note=note, **middle, **target)
    if name == "stile, barriers auto":
        section.add(f"{way}, depth {frames}: whole stacks", name, "all stacks",
                    measure.Figure.of([r["whole"] for r in found]), target=LEAST_WHOLE, least=True)
    return True


def ratios(bench, section):
    """Signals that a program sends itself."""
    program = bench.program("depth_stack")
    lines = {}
    for way, argument in WAYS.items():
        for frames in bench.scaled(DEPTHS, [30]):
            calls = {}
            for name, how, share in sides(bench, section, frames):
                # Stile's rules are learned in an image of its own; the others learn nothing that outlives one.
                first = argument if name.startswith("stile") else f"{argument}-told"
                argv = [program, first, deep.argument(frames), bench.scaled(151, 11)]
                calls[name] = partial(measured, how, share, argv, frames)
            results = measure.in_turn(calls, bench.rounds(3), warm=False)
            for name, found in results.items():
                if report(section, way, frames, name, found):
                    middle = statistics.median(r["ratio"] for r in found)
                    lines.setdefault(f"{name}, {way}", []).append((frames, middle))
    section.without("gperftools, stacks deeper", f"it takes {GPERFTOOLS_DEPTH} frames at most")
    section.plot("sample", "A signal, of one with an empty handler", "depth of the stack (frames)", "ratio", lines)


# ---- the clock's own signals


def of_iteration(run):
    """CPU nanoseconds."""
    if not run.out:
        raise measure.Failed("depth_stack has not told what its iterations took")
    iterations, ns, _ = map(float, run.out.split())
    return ns / iterations


def clock_round(bench, frames, ms):
    """{side: nanoseconds of an iteration} of all three at once, and the share of Stile's stacks that is whole."""
    program, depth = bench.program("depth_stack"), deep.argument(frames)
    runs = bench.at_once({side: ([program, "warm", depth, ms], bench.profilers.get(side), CLOCK_HZ, {})
                          for side in ("plain", "floor", "stile")})
    found = {side: of_iteration(run) for side, run in runs.items()}, deep.taken(runs["stile"], depth).share
    for run in runs.values():
        run.forget()
    return found


def by_clock(bench, section):
    """What the clock's signals take of a program's CPU time: Stile's share / that of the same clock with an empty
    handler, on one processor at once. The interrupt is in both, and so is what either leaves of the caches."""
    floor = bench.profilers["floor"]
    if floor.absent:
        section.without("the clock's own signals", floor.absent)
        return
    ms = bench.scaled(1000, 100)
    for frames in bench.scaled([30, 1000, 10_000], [30]):
        found = [clock_round(bench, frames, ms) for _ in range(bench.rounds(7))]
        shares = {side: [ns[side] / ns["plain"] - 1 for ns, _ in found] for side in ("stile", "floor")}
        whole = statistics.median(share for _, share in found)
        section.add(f"the clock's own, {CLOCK_HZ} Hz, depth {frames}", "stile, barriers auto", "empty handler",
                    measure.ratio_of_extras(shares["stile"], shares["floor"]), target=ALLOWED[frames],
                    note=f"{100 * whole:.1f} % of the stacks whole", whole=whole, **shares)


def ask(bench, section):
    ratios(bench, section)
    by_clock(bench, section)
