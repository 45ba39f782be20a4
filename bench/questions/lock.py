"""How often a sample is without a stack because the stack was locked. The thread's own code holds the lock with signals
blocked, so only what another thread holds can be in a sample's way."""

import statistics
from collections import Counter
from functools import partial

import pprof
from driver import deep, measure

QUESTION = "the share of samples whose stack was locked: under what programs do, and under one thing all the time"
WAYS = ["normal", "fork", "threads", "throw"]
RATES = [1000, 10_000, 20_000]


def taken(bench, way, rate, ms):
    """Shares of one run's samples, children's among them, and how many there are."""
    run = bench.run([bench.program("lock_load"), way, ms], bench.profilers["stile"], hz=rate,
                    env={"PROFILE_CLOCK": "perf", "PROFILE_BARRIERS": "on"})
    files = sorted(run.directory.glob("profile*.gz"))
    if not files:
        raise measure.Failed(f"lock_load {way} left no profile")
    roots, hits = Counter(), 0
    for p in map(deep.load, files):
        names = {i: frames[-1].name for i, frames in p.locations.items()}
        for s in p.samples:
            roots[names[s.location_id[-1]]] += s.value[0]
        hits += pprof.barriers(p).get("hit") or 0
    samples = sum(roots.values())
    if not samples:
        raise measure.Failed(f"lock_load {way} has no samples")
    reasons = Counter({name: n for name, n in roots.items()
                       if pprof.BRACKETED.match(name) and name not in pprof.PLACES})
    return {"locked": roots["[stack locked]"] / samples, "whole": 1 - sum(reasons.values()) / samples,
            "samples": samples, "hits": hits, "reasons": reasons}


def ask(bench, section):
    ms = bench.scaled(1000, 100)
    for way in WAYS:
        for rate in bench.scaled(RATES, RATES[-1:]):
            found = measure.in_turn({way: partial(taken, bench, way, rate, ms)}, bench.rounds(3), warm=False)[way]
            reasons = sum((f.pop("reasons") for f in found), Counter())
            middle = {k: statistics.median(f[k] for f in found) for k in found[0]}
            why = f", else mostly {reasons.most_common(1)[0][0]}" if reasons else ""
            section.add(f"{way}, {rate} Hz: [stack locked]", "stile, barriers on", "all samples",
                        measure.Figure.of([f["locked"] for f in found]),
                        note=f"{100 * middle['whole']:.2f} % with a whole stack{why}", **middle)
