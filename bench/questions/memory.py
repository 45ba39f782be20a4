"""What a profiled program has in memory for it, and what the collector has."""

import json

from driver import measure

QUESTION = "how much more memory a program has resident when it is profiled, by its threads; and the collector"
RATE = 100
BASE_KIB, IDLE_KIB, BUSY_KIB = 2048, 16, 96
STACKS = 1000000


def resident(run):
    """KiB."""
    return int(run.out.split()[0])


def ask(bench, section):
    rounds = bench.rounds(5)
    seconds = bench.scaled(1.0, 0.2)
    profilers = bench.sides(section, ["stile", "gperftools"]) + bench.peers_by_path(section)
    counts = [(n, 0) for n in bench.scaled([10, 64, 1000, 10000], [10, 100])]
    counts += [(0, n) for n in bench.scaled([1, 2, 16, 64], [2])]
    lines = {}
    for idle, busy in counts:
        argv = [bench.program("idle"), idle, busy, seconds]
        sides = {"plain": lambda argv=argv: bench.run(argv)}
        for p in profilers:
            sides[p.name] = lambda p=p, argv=argv: bench.run(argv, p, hz=RATE)
        allowed = BASE_KIB + IDLE_KIB * (idle + 1) + BUSY_KIB * busy  # the main thread sleeps, too
        what = f"{idle} threads that sleep" if idle else f"{busy} threads that work"
        try:
            runs = measure.in_turn(sides, rounds, warm=False)
        except measure.Failed as e:
            section.failed(what, str(e))
            continue
        for p in profilers:
            more = [r - b for r, b in zip(map(resident, runs[p.name]), map(resident, runs["plain"]))]
            section.add(f"resident with {what}", p.name, "what is allowed",
                        measure.Figure.of([m / allowed for m in more]),
                        **({"target": 1.0} if p.name == "stile" else {}), more_kib=more, allowed_kib=allowed)
            if idle:
                lines.setdefault(p.name, []).append((idle, max(measure.Figure.of(more).median, 1)))
        section.add(f"the collector with {what}", "stile", "the program, plain",
                    measure.ratio(measure.of(runs["stile"], "beside_rss"), measure.of(runs["plain"], "rss")),
                    bytes=measure.of(runs["stile"], "beside_rss"))
    section.plot("memory", "More memory resident with a profiler", "sleeping threads", "KiB", lines)
    million(bench, section)


def million(bench, section):
    """Synthetic: nobody sampled these."""
    stacks = bench.scaled(STACKS, 20000)
    path = bench.scratch / "stacks.pb.gz"
    found = json.loads(bench.run([bench.program("drain"), "stacks", stacks, 30, path]).out)
    used = (found["with_kib"] - found["before_kib"]) * 1024
    section.add(f"the collector, {stacks} distinct stacks 30 deep", "stile", "as 8-byte addresses",
                measure.Figure.of([used / (found["stacks"] * 30 * 8)]), bytes=used,
                note="synthetic: records that nobody sampled", **found)
    section.add(f"the file, {stacks} distinct stacks 30 deep", "stile", "as 8-byte addresses",
                measure.Figure.of([path.stat().st_size / (found["stacks"] * 30 * 8)]), note="synthetic",
                bytes=path.stat().st_size)
