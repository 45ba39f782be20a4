"""How many samples one collector sustains."""

import json

import pprof

from driver import generated, measure

QUESTION = "how many samples per second one collector takes from its programs, and what it loses"
WANTED = 200000  # per second of one core
DEPTH = 30
THREADS = 20  # at 10 kHz each
RATE = 10000
SYNTHETIC = "synthetic: rings filled by the benchmark"


def drained(bench, rate, threads, stacks, seconds):
    return json.loads(bench.run([bench.program("drain"), "rate", rate, threads, DEPTH, stacks, seconds]).out)


def synthetic(bench, section, rounds):
    """The collector's own draining, of records such as the handler leaves; which takes no part in it."""
    seconds = bench.scaled(3, 0.3)
    for stacks in bench.scaled([1000, 10000, 100000], [1000]):
        found = [drained(bench, WANTED, THREADS, stacks, seconds) for _ in range(rounds)]
        section.add(f"samples drained per second of a core, {stacks} distinct stacks", "stile", f"{WANTED} wanted",
                    measure.Figure.of([f["drained"] / f["cpu"] / WANTED for f in found]), target=1.0,
                    least=True, note=SYNTHETIC, found=found)
        section.add(f"samples lost at {WANTED} per second, {stacks} distinct stacks", "stile", "samples due",
                    measure.Figure.of([f["lost"] / (f["lost"] + f["written"]) for f in found]), target=0.0,
                    note=SYNTHETIC, found=found)


def ticks(comments, reason):
    """Of a profile's comment on what is not whole."""
    for c in comments:
        if c.startswith("not whole:") and f"[{reason}] " in c:
            return int(c.split(f"[{reason}] ")[1].split()[0])
    return 0


def sampled(bench, argv, periods):
    """One run in which each call path gets so many periods: samples taken, those lost, the collector's CPU time."""
    run = bench.run(argv, bench.profilers["stile"], hz=RATE, env={"STACKS_PERIOD": str(periods / RATE)})
    profile = pprof.load(run.profile)
    full = ticks(profile.comments, "buffer full")
    return profile.count - full, full, run.beside


def real(bench, section, rounds):
    """As much as the machine's processors can sample of one program. What comes after its end is the same for few
    samples and for many of the same stacks: the difference is draining."""
    units, stacks = bench.scaled(20, 2), bench.scaled(5000, 300)
    for threads in (2, 8):
        argv = [generated.many_stacks(bench, units), stacks, threads, DEPTH]
        cost, lost = [], []
        for _ in range(rounds):
            few, many = sampled(bench, argv, 1), sampled(bench, argv, 6)
            if many[2] > few[2]:
                cost.append((many[0] - few[0]) / (many[2] - few[2]) / WANTED)
            lost.append((few[1] + many[1]) / (few[0] + many[0] + few[1] + many[1]))
        what = f"{threads} threads at {RATE} Hz"
        section.add(f"samples per second of the collector's CPU time, {what}", "stile", f"{WANTED} wanted",
                    measure.Figure.of(cost), note="its rounds and its rules included")
        section.add(f"samples lost, {what}", "stile", "samples due", measure.Figure.of(lost),
                    note="the program has all processors")


def ask(bench, section):
    rounds = bench.rounds(3)
    synthetic(bench, section, rounds)
    real(bench, section, rounds)
