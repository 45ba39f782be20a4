"""What a program that does nothing pays for."""

from driver import measure

QUESTION = "how much longer /bin/true takes: Stile loaded and asked for nothing, and asked for a profile"
RATE = 100
COMMAND = ["/bin/true"]


def profiled(bench, p):
    run = bench.run(COMMAND, p, hz=RATE)
    if p.name == "stile" and not run.profile.exists():
        raise measure.Failed("true has ended and its profile is not there")
    return run


def ask(bench, section):
    rounds = bench.rounds(41)
    stile = bench.profilers["stile"]
    sides = {"plain": lambda: bench.run(COMMAND),
             "stile, PROFILE unset": lambda: bench.run(COMMAND, env={"LD_PRELOAD": stile.variables["LD_PRELOAD"]})}
    # perf is started before the command and ends after it: it has no part in this.
    for p in bench.sides(section, ["stile", "gperftools"]) + bench.peers_by_path(section):
        sides[p.name] = lambda p=p: profiled(bench, p)
    runs = measure.in_turn(sides, rounds)
    plain = measure.of(runs["plain"], "wall")
    for name in list(sides)[1:]:
        target = {"target": 1.25} if name == "stile, PROFILE unset" else {}
        section.add("from start to end", name, "plain", measure.ratio(measure.of(runs[name], "wall"), plain), **target)
    if "gperftools" in runs:
        section.add("from start to end, profiled", "stile", "gperftools",
                    measure.ratio(measure.of(runs["stile"], "wall"), measure.of(runs["gperftools"], "wall")), target=1.0)
