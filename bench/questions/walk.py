"""What the walk of a stack costs once warm, beside other ways of taking one."""

import statistics
from functools import partial

from driver import deep, google, measure, programs

QUESTION = "what a walk by rules costs once warm, of what others' do: in one process by depth, and in real programs"
DEPTHS = [10, 50, 200, 1000]
LEAST_DEPTH = 2
OTHERS = ["unw_backtrace", "unw_step"]
KINDS = {"linked": "frames linked by rbp", "plain": "rbp a register like others"}
FRAME_NS, FRAME_TIMES = 6, 1.5  # allowed for a frame: the greater of these, and times that by frame pointers
HZ = 1000
PROMISED = {"CPython": 1 / 5, "cc1plus": 1 / 10}  # of unw_backtrace's
LEAST_RULED = 0.995
RULES_KIB = 4096
WALK = r"^walk: (\d+) frames by rules, (\d+) by libunwind, (\d+) of them without a rule; (\d+) KiB"
TIME = r"^walk time: (\d+) by rules alone, (\d+) cycles; (\d+) with a snapshot, (\d+)"


# ---- in one process


def timed(bench, argv):
    """{(kind, side, depth): median of a run's repetitions}, and the frames likewise."""
    run = bench.run(argv)

    def keyed(found):
        split = {tuple(name.split("/")[:3]): statistics.median(values) for name, values in found.items()}
        return {(kind, side, int(depth)): value for (kind, side, depth), value in split.items()}
    ns, frames = keyed(google.times(run)), keyed(google.times(run, "frames"))
    for (kind, side, depth), n in frames.items():
        if side == "stile" and n != frames[kind, side, LEAST_DEPTH] + depth - LEAST_DEPTH:
            raise measure.Failed(f"a walk found {n:.0f} frames of a stack {depth} deep")
    return ns


def here(bench, section):
    argv = google.argv(bench.program("walk_frames"), bench.scaled(0.01, 0.001), bench.scaled(5, 1))
    runs = [timed(bench, argv) for _ in range(bench.rounds(5))]

    def of(kind, side, depth):
        return [ns[kind, side, depth] for ns in runs]

    def frame(kind, side, depth):
        return [(ns[kind, side, depth] - ns[kind, side, LEAST_DEPTH]) / (depth - LEAST_DEPTH) for ns in runs]
    lines = {}
    for kind, words in KINDS.items():
        for side in OTHERS:
            for depth in DEPTHS:
                ratio = measure.ratio(of(kind, "stile", depth), of(kind, side, depth))
                section.add(f"a walk, depth {depth}, {words}", "stile", side, ratio)
                lines.setdefault(f"{side}, {words}", []).append((depth, 1 / ratio.median))
    for depth in (50, 1000):
        ours, linked = frame("linked", "stile", depth), frame("linked", "frame pointers", depth)
        section.add(f"a frame, depth {depth}", "stile", "frame pointers", measure.ratio(ours, linked))
        section.add(f"a frame, depth {depth}", "stile", f"{FRAME_TIMES} × frame pointers, or {FRAME_NS} ns",
                    measure.ratio(ours, [max(FRAME_TIMES * ns, FRAME_NS) for ns in linked]), target=1.0)
    section.plot("walk", "A walk once warm, of Stile's by rules", "depth of the stack (frames)", "ratio", lines)


# ---- in real programs


def told(path):
    """What a profile says of all walks up to its end; None if it says nothing."""
    p = deep.load(path)
    walk, time = deep.comment(p, WALK), deep.comment(p, TIME)
    if not walk or not time:
        return None
    by_rules, by_libunwind, unruled, kib = map(int, walk.groups())
    n, cycles, snapshots, snapshot_cycles = map(int, time.groups())
    return {"frames": by_rules + by_libunwind, "unruled": unruled, "walks": n + snapshots,
            "cycles": cycles + snapshot_cycles, "snapshots": snapshots, "kib": kib}


def ours(bench, argv, warm_ms):
    """Of the walks after the first piece."""
    run = bench.run(argv, bench.profilers["stile"], hz=HZ,
                    env={"PROFILE_DEBUG": "walktime=1", "PROFILE_INTERVAL": f"{warm_ms}ms"})
    pieces = sorted(filter(None, map(told, run.directory.glob("profile*.gz"))), key=lambda t: t["walks"])
    if len(pieces) < 2 or pieces[-1]["walks"] == pieces[0]["walks"]:
        raise measure.Failed(f"{argv[0]} left {len(pieces)} pieces of a profile")
    more = {k: pieces[-1][k] - pieces[0][k] for k in pieces[0]}
    return {"cycles": more["cycles"] / more["walks"], "frames": more["frames"] / more["walks"],
            "ruled": 1 - more["unruled"] / more["frames"], "kib": pieces[-1]["kib"],
            "snapshots": more["snapshots"] / more["walks"]}


def libunwinds(bench, argv, warm_ms):
    out = bench.scratch / "unw_backtrace"
    out.unlink(missing_ok=True)
    bench.run(argv, env={"LD_PRELOAD": bench.build / "bench" / "peers" / "unw_backtrace.so", "STILE_BENCH_HZ": HZ,
                               "STILE_BENCH_OUT": out, "STILE_BENCH_WARM_MS": warm_ms})
    walks, cycles, frames = map(int, out.read_text().split()) if out.exists() else (0, 0, 0)
    if not walks:
        raise measure.Failed(f"{argv[0]} under unw_backtrace has no walks")
    return {"cycles": cycles / walks, "frames": frames / walks}


def real(bench, section, name, argv):
    warm_ms = bench.scaled(1500, 300)
    calls = {"stile": partial(ours, bench, argv, warm_ms), "unw_backtrace": partial(libunwinds, bench, argv, warm_ms)}
    found = measure.in_turn(calls, bench.rounds(3), warm=False)

    def of(side, what):
        return [f[what] for f in found[side]]

    def middle(side, what):
        return statistics.median(of(side, what))
    frames = f"{middle('stile', 'frames'):.0f} frames, theirs {middle('unw_backtrace', 'frames'):.0f}"
    target = {"target": PROMISED[name]} if name in PROMISED else {}
    cycles, theirs = of("stile", "cycles"), of("unw_backtrace", "cycles")
    section.add(f"{name}: a walk", "stile", "unw_backtrace", measure.ratio(cycles, theirs), note=frames, cycles=cycles,
                unw_backtrace_cycles=theirs, **target)
    section.add(f"{name}: frames with a rule", "stile", "all frames", measure.Figure.of(of("stile", "ruled")),
                target=LEAST_RULED, least=True,
                note=f"{100 * middle('stile', 'snapshots'):.1f} % of the walks left a rest to the collector")
    section.add(f"{name}: memory of the rules", "stile", f"{RULES_KIB >> 10} MiB allowed",
                measure.Figure.of([kib / RULES_KIB for kib in of("stile", "kib")]), target=1.0)


def ask(bench, section):
    if google.built(bench, "walk_frames"):
        here(bench, section)
    else:
        section.without("in one process", google.ABSENT)
    for name, command in programs.ALL.items():
        if bench.quick and name != "CPython":
            continue
        argv = command(bench, bench.scaled(5, 0.8))
        if argv is None:
            section.without(name, "it is not installed")
            continue
        real(bench, section, name, argv)
