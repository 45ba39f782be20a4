"""How long a profile takes to be there once its program has ended."""

import subprocess
import time

import pprof

from driver import generated, measure

QUESTION = "how long after a program's last act its profile is there, with names and lines"
RATE = 10000
NODE_RATE = 1000
ALLOWED_S, NODE_ALLOWED_S, NAMES_ALLOWED_S = 0.5, 1.0, 2.0
NAMES = "comm,tid,time,ip,sym,dso"
SCRIPT_LIMIT_S = 60
NODE = ("const end = Date.now() + {ms}; let n = 0, s = '';"
        "while (Date.now() < end) {{ const a = [];"
        "for (let i = 0; i < 2000; i++) a.push({{i, k: 'k' + (i * 7919 % 1000)}});"
        "a.sort((x, y) => x.k < y.k ? -1 : 1); s = JSON.stringify(JSON.parse(JSON.stringify(a))); n += s.length;"
        "n += s.replace(/k(\\d+)/g, 'z$1').length; }}"
        "process.on('exit', () => require('fs').writeSync(1, "
        "(Number(process.hrtime.bigint()) / 1e9).toFixed(9) + '\\n'));")


def finish_s(run):
    """From the program's last act to its end, which waits for the file."""
    return run.end - float(run.out.split()[-1])


class Program:
    """What is run, at which rate, and how long its profile may take."""

    def __init__(self, bench, name, argv, rate, allowed, env=None, promised=True):
        self.bench, self.name, self.argv, self.env = bench, name, argv, env or {}
        self.rate, self.allowed, self.promised = rate, allowed, promised

    def run(self, profiler=None):
        return self.bench.run(self.argv, profiler, hz=self.rate, env=self.env)

    def stile(self):
        run = self.run(self.bench.profilers["stile"])
        if not run.profile.exists():
            raise measure.Failed(f"{self.name}: the program has ended and its profile is not there")
        return run


def perf_script(bench, run, *how):
    """What `perf script` takes for a record, in seconds for each sample."""
    def script(*argv):
        done = subprocess.run([bench.tool("perf"), "script", "-i", str(run.profile), *argv], capture_output=True,
                              timeout=SCRIPT_LIMIT_S, check=False, env=bench.environment)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["failed"]
            raise measure.Failed(f"perf script: {said[-1]}")
        return done.stdout
    samples = script("-F", "comm,tid").count(b"\n")
    with open(run.directory / "script", "wb") as out:
        began = time.monotonic()
        done = subprocess.run([bench.tool("perf"), "script", "-i", str(run.profile), *how], stdout=out,
                              stderr=subprocess.DEVNULL, timeout=SCRIPT_LIMIT_S, check=False, env=bench.environment)
        took = time.monotonic() - began
    if done.returncode != 0 or not samples:
        raise measure.Failed("perf script failed")
    return took / samples


SCRIPTS = {"perf script": ["-F", NAMES], "perf script --no-inline": ["--no-inline", "-F", NAMES]}
LINES = {"perf script, with lines": ["-F", NAMES + ",srcline"]}


def told(bench, section, program, rounds):
    """Stile's part: its runs, of the last of which the profile is looked at."""
    runs = measure.in_turn({"stile": program.stile}, rounds, warm=rounds > 2)
    took = [finish_s(r) for r in runs["stile"]]
    last = runs["stile"][-1]
    profile = pprof.load(last.profile)
    late = [c for c in profile.comments if c.startswith("names: time was up")]
    stacks, samples = len({tuple(s.location_id) for s in profile.pb.sample}), profile.count
    note = f"{stacks} distinct stacks, {len(profile.pb.location)} places" + (f"; {late[0]}" if late else "")
    section.add(f"exit to file: {program.name}", "stile", f"{program.allowed} s allowed",
                measure.Figure.of([t / program.allowed for t in took]), note=note, seconds=took,
                **({"target": 1.0} if program.promised else {}), stacks=stacks, samples=samples)
    return took, samples


def beside_perf(bench, section, program, took, samples, scripts, note=""):
    """The same samples through `perf script`: of a record of the same program, by the sample."""
    perf = bench.profilers["perf fp"]
    record = program.run(perf)
    for name, how in scripts.items():
        try:
            theirs = perf_script(bench, record, *how) * samples
        except subprocess.TimeoutExpired:
            section.without(name, f"{program.name}: not done after {SCRIPT_LIMIT_S} s")
            continue
        section.add(f"the same samples: {program.name}", "stile", name,
                    measure.Figure.of([t / theirs for t in took]), perf_seconds=theirs, note=note,
                    **({} if note else {"target": 0.2}))


def stacks_program(bench, stacks, allowed, units):
    threads = 2 if stacks > 10000 else 1
    argv = [generated.many_stacks(bench, units), stacks, threads, 30]
    return Program(bench, f"{stacks} call paths", argv, RATE, allowed, {"STACKS_PERIOD": str(1.1 / RATE)},
                   promised=stacks <= 10000)


def ask(bench, section):
    rounds, perf = bench.rounds(5), not bench.profilers["perf fp"].absent
    units = bench.scaled(20, 2)
    few = bench.scaled(10000, 500)
    programs = [stacks_program(bench, few, ALLOWED_S, units)]
    if not bench.quick:
        programs.append(stacks_program(bench, 100000, ALLOWED_S, units))
    for program in programs:
        took, samples = told(bench, section, program, rounds if program is programs[0] else min(rounds, 2))
        if perf:
            beside_perf(bench, section, program, took, samples, SCRIPTS)
        # It asks for each line anew, so a tenth of the stacks tells it.
        if perf and not bench.quick and program is programs[0]:
            fewer = stacks_program(bench, few // 10, ALLOWED_S, units)
            beside_perf(bench, section, fewer, took, samples, LINES, "perf's by a tenth of the stacks, ten times")
    if bench.tool("node"):
        ms = bench.scaled(2000, 100)
        program = Program(bench, "node", [bench.tool("node"), "-e", NODE.format(ms=ms)], NODE_RATE, NODE_ALLOWED_S)
        took, samples = told(bench, section, program, rounds)
        if perf:
            beside_perf(bench, section, program, took, samples, SCRIPTS)
    else:
        section.without("node", "it is not installed")
    if bench.quick:
        section.without("500 MB of debug information", "it takes a minute to make; not with --quick")
    else:
        path = generated.much_debug(bench)
        name = f"{path.stat().st_size / 1e6:.0f} MB with debug information"
        told(bench, section, Program(bench, name, [path, 1], NODE_RATE, NAMES_ALLOWED_S), min(rounds, 3))
    if not perf:
        section.without("perf script", bench.profilers["perf fp"].absent)
    section.without("gperftools", "it writes addresses; names are looked up each time that its profile is read")
