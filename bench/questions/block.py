"""What recording waits costs programs that do not wait."""

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

from driver import google, measure

QUESTION = "what the blocking profile costs who does not block: calls that do not wait, and redis under load"
RATE = 10_000  # PROFILE_BLOCK_RATE as it is if nobody says
SIDES = {"library idle": None, "waits recorded": RATE, "all waits recorded": 1}

# A server with its load. $0 runs it and says in $1 what it used; the last arguments are its variables. timeout ends all
# that it has started, if it comes to that.
SERVE = """
used=$1 socket=$2 requests=$3; shift 3
timeout -s KILL 120 "$0" "$used" "$@" redis-server --port 0 --unixsocket "$socket" --save "" >/dev/null & server=$!
i=0
until redis-cli -s "$socket" ping >/dev/null 2>&1; do
    i=$((i + 1))
    if [ $i -ge 250 ]; then
        kill $server
        exit 1
    fi
    sleep 0.02
done
redis-benchmark -s "$socket" -q --csv -t get -n "$requests" -c 20
status=$?
redis-cli -s "$socket" shutdown nosave
wait $server && exit $status
"""


def variables(bench, out, rate):
    """Of libstile, asked for nothing (rate None) or for waits."""
    asked = {"PROFILE_BLOCK": out, "PROFILE_BLOCK_RATE": rate} if rate else {}
    return {"LD_PRELOAD": bench.profilers["stile"].variables["LD_PRELOAD"], **asked}


def pairs(bench, section):
    argv = google.argv(bench.program("block_pairs"), bench.scaled(0.1, 0.005))
    out = bench.scratch / "block" / "profile.pb.gz"

    def one(env):
        out.parent.mkdir(exist_ok=True)
        run = bench.run(argv, env=env)
        if "PROFILE_BLOCK" in env and not out.exists():
            raise measure.Failed("block_pairs: no blocking profile was written")
        shutil.rmtree(out.parent)
        return {name: times[0] for name, times in google.times(run).items()}
    sides = {"plain": partial(one, {})}
    sides.update({name: partial(one, variables(bench, out, rate)) for name, rate in SIDES.items()})
    found = measure.in_turn(sides, bench.rounds(11))
    for name in found["plain"][0]:
        for side in SIDES:
            section.add(name.replace("_", " "), f"stile, {side}", "plain",
                        measure.ratio([f[name] for f in found[side]], [f[name] for f in found["plain"]]))


def load(bench, env):
    """(seconds a request, the server's CPU seconds)."""
    directory = Path(tempfile.mkdtemp(prefix="redis-", dir=bench.scratch))
    env = {k: str(v).replace("{dir}", str(directory)) for k, v in env.items()}
    run = bench.run(["/bin/sh", "-c", SERVE, bench.program("launch"), directory / "used", directory / "socket",
                     bench.scaled(100_000, 2000), *(f"{k}={v}" for k, v in env.items())])
    told = re.search(rb'"GET","([\d.]+)"', run.out)
    used = directory / "used"
    if not told or not used.exists():
        raise measure.Failed("redis under load has not told what it did")
    _, _, user, system, *_ = used.read_text().split()
    if "PROFILE_BLOCK" in env and not list(directory.glob("profile*")):
        raise measure.Failed("redis under load: no blocking profile was written")
    shutil.rmtree(directory)
    return 1 / float(told[1]), float(user) + float(system)


def redis(bench, section):
    if not all(map(bench.tool, ("redis-server", "redis-cli", "redis-benchmark"))):
        section.without("redis", "it is not installed (Debian: redis-server, redis-tools)")
        return
    env = variables(bench, "{dir}/profile.pb.gz", RATE)
    found = measure.in_turn({"plain": partial(load, bench, {}), "stile": partial(load, bench, env)}, bench.rounds(9))
    for i, what in enumerate(("redis: time of a request", "redis: CPU time of a request")):
        section.add(what, "stile, waits recorded", "plain",
                    measure.ratio([f[i] for f in found["stile"]], [f[i] for f in found["plain"]]))


def ask(bench, section):
    if google.built(bench, "block_pairs"):
        pairs(bench, section)
    else:
        section.without("pairs", google.ABSENT)
    redis(bench, section)
