"""Programs that nobody here wrote, with a barrier on every frame that may have one, 4000 times a second: they do what they
did."""

import re
import subprocess

import harness
import pprof
from test_programs import PYTHON_SCRIPT, generated_cxx, make_repository, state_of
from test_verify import all_profiles

HZ = 4000
ALL = {"PROFILE_BARRIERS": "all"}

# Stacks that V8 itself walks: its own exceptions and traces, callbacks from its C++, and its collector's marking.
NODE_TRACES = r"""
let seed = 42;
function random() { seed = (seed * 1103515245 + 12345) & 0x7fffffff; return seed; }
function deep(n, f) { return n ? [n].map(() => deep(n - 1, f))[0] : f(); }
function trace() { return new Error("x").stack.split("\n").length; }
function thrown(n) { try { deep(n, () => { throw new Error(String(n)); }); } catch (e) { return e.message; } }
Error.stackTraceLimit = 500;
let total = 0, kept = [];
for (let round = 0; round < 150; round++) {
    total += deep(60 + round % 30, trace);
    total += Number(thrown(round % 100));
    const rows = Array.from({length: 4000}, () => ({id: random(), text: "t".repeat(random() % 50)}));
    rows.sort((a, b) => a.id - b.id || trace());
    total += JSON.parse(JSON.stringify(rows, (k, v) => typeof v === "number" ? v % 1000 : v)).length;
    total += "aXbXc".repeat(200).replace(/X/g, () => String(deep(5, () => 1))).length;
    kept.push(rows); if (kept.length > 20) kept.shift();
    if (round % 50 === 49 && global.gc) global.gc();
}
console.log(total);
"""


def same(argv, out, **options):
    """The same run with and without; the profile of the program itself."""
    plain = harness.run(argv, **options)
    r = harness.run(argv, profile=out, hz=HZ, env=ALL, **options)
    assert r.same == plain.same and r.status == 0, (plain, r)
    return pprof.valid(out)


def assert_used(p):
    told = pprof.barriers(p)
    assert told["off"] is None and min(told["placed"], told["hit"], told["saved"]) > 0, p.comments


def test_python(out, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PYTHON_SCRIPT)
    assert_used(same([harness.PYTHON, script], out))


def test_node(out, tmp_path):
    script = tmp_path / "script.js"
    script.write_text(NODE_TRACES)
    assert_used(same([harness.tool("node"), "--expose-gc", script], out))


def test_gcc(out, tmp_path, mark):
    """With an unwinder of their own the driver and the compiler have none, the assembler may."""
    source = tmp_path / "big.cc"
    source.write_text(generated_cxx(5))
    objects = [tmp_path / "plain.o", tmp_path / "profiled.o"]
    compiler = [harness.tool("g++"), "-O2", "-c", source, "-o"]
    plain = harness.run([*compiler, objects[0]])
    r = harness.run([*compiler, objects[1]], profile=out, hz=HZ, env=ALL)
    assert r.same == plain.same == (0, b"", b"")
    assert objects[0].read_bytes() == objects[1].read_bytes()
    told = [pprof.barriers(p) for p in all_profiles(out, mark) if p.samples]
    assert any(t["off"] == "cc1plus has an unwinder to itself" and t["placed"] == 0 for t in told), told


def test_git(out, tmp_path, mark):
    harness.tool("git")
    repositories = [tmp_path / "plain", tmp_path / "profiled"]
    for path in repositories:
        make_repository(path)
    argv = ["git", "-c", "gc.autoDetach=false", "gc", "--aggressive", "--prune=now"]
    plain = harness.run(argv, cwd=repositories[0])
    r = harness.run(argv, cwd=repositories[1], profile=out, hz=HZ, env=ALL)
    assert r.same == plain.same and r.status == 0
    assert state_of(repositories[0]) == state_of(repositories[1])
    told = [pprof.barriers(p) for p in all_profiles(out, mark) if p.samples]
    assert sum(t["placed"] for t in told) > 0 and not any(t["off"] for t in told), told


class Redis(harness.Program):
    """A server on a socket of its own, which keeps nothing."""

    def __init__(self, directory, **options):
        self.socket = directory / "redis.socket"
        super().__init__([harness.tool("redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", "",
                          "--appendonly", "no", "--dir", directory, "--enable-debug-command", "yes"], **options)
        self.wait_output("ready to accept connections")

    def ask(self, *words, tool="redis-cli"):
        r = subprocess.run([harness.tool(tool), "-s", str(self.socket), *words], capture_output=True, text=True,
                           timeout=120, check=False, env=harness.clean_environment())
        assert r.returncode == 0, r
        return r.stdout


def redis_digest(directory, **options):
    """A load, then a script of the server's own: what it has after that does not depend on the order."""
    directory.mkdir()
    with Redis(directory, **options) as server:
        server.ask("-q", "-n", "30000", "-c", "20", "-r", "500", "-t", "ping,lrange_100,lrange_300,mset",
                   tool="redis-benchmark")
        server.ask("FLUSHALL")
        got = server.ask("EVAL", "local sum = 0 for i = 1, 60000 do redis.call('ZADD', 'z' .. i % 50, i, 'm' .. i * 7919 % 1000) "
                         "redis.call('HSET', 'h' .. i % 70, i % 30, i) sum = sum + redis.call('ZCARD', 'z' .. i % 50) end "
                         "return sum", "0")
        assert got.strip() == "1190500", got
        server.ask("SORT", "z7", "ALPHA", "DESC", "STORE", "sorted")
        digest = server.ask("DEBUG", "DIGEST").strip()
        assert re.fullmatch(r"[0-9a-f]{40}", digest), digest
        server.ask("SHUTDOWN", "NOSAVE")
        assert server.wait(60).status == 0
    return digest


def test_redis(out, tmp_path):
    plain = redis_digest(tmp_path / "plain")
    assert redis_digest(tmp_path / "all", profile=out, hz=HZ, env=ALL) == plain
    assert_used(pprof.valid(out))
