"""Two walkers, one stack: what the handler finds is what libunwind finds in a copy of the same stack. With barriers, what
the handler finds is what is new, and the rest is what was kept of earlier samples; libunwind walks all of it, through the
stubs.

With PROFILE_DEBUG=verifyunwind=1 each sample is walked by both, and the first difference ends the run; with
verifyunwind=2 they are counted. Each workload has two seconds of CPU time. By hand it can have more, and then they are
counted, and the sums printed:

    STILE_VERIFY_SECONDS=60 python3 -m pytest -q -s tests/e2e/test_verify.py
"""

import os
import re
from collections import Counter, namedtuple

import pytest

import harness
import pprof
from test_programs import generated_cxx

HZ = 10000
LEAST_PER_SECOND = 2500  # what is compared, of what is taken: two walks and a copy for each take their time
ASKED = os.environ.get("STILE_VERIFY_SECONDS")
SECONDS = float(ASKED or 2)

VERIFIED = re.compile(r"unwind verified: (\d+) samples, (\d+) differ")
DIFFERS = "unwind differs:"

Verdict = namedtuple("Verdict", "samples differ lines")  # lines: what the comments say of differences


def verdict(profiles):
    """The sums over some profiles. Each that has samples has to say how many were compared."""
    samples = differ = 0
    lines = []
    for p in profiles:
        said = [m for m in map(VERIFIED.fullmatch, p.comments) if m]
        lines += [c for c in p.comments if c.startswith(DIFFERS)]
        if p.samples or said:
            assert len(said) == 1, f"{p.name} says nothing of a comparison: {p.comments}"
            samples += int(said[0].group(1))
            differ += int(said[0].group(2))
    return Verdict(samples, differ, lines)


def all_profiles(out, mark):
    """The program's and its children's. The program waits for its own file only; the last collector ends when it has
    written them all."""
    harness.wait_for_file(out)
    assert harness.wait_until(lambda: not harness.collectors(mark), 120), "a collector does not end"
    return [pprof.load(p) for p in sorted(out.parent.glob("*.pb.gz"))]


def add(a, b):
    return Verdict(a.samples + b.samples, a.differ + b.differ, a.lines + b.lines)


# --- The harness itself


def told(*comments, samples=1):
    """A profile with these comments."""
    pb = pprof.pb2.Profile()
    pb.string_table.extend(["", *comments])
    pb.comment.extend(range(1, len(comments) + 1))
    for _ in range(samples):
        pb.sample.add(value=[1, 100])
    return pprof.Profile(pb.SerializeToString())


def test_verdicts_are_read():
    some = told("stile 1.0", "unwind verified: 1200 samples, 0 differ", "command: x")
    lines = ["unwind differs: handler 0x1 0x2", "unwind differs: libunwind 0x1"]
    more = told("unwind verified: 34 samples, 2 differ", *lines)
    assert verdict([some]) == (1200, 0, [])
    assert verdict([some, more]) == (1234, 2, lines)
    assert verdict([told("stile 1.0", samples=0), some]) == (1200, 0, [])
    assert add(verdict([some]), verdict([more])).samples == 1234


@pytest.mark.parametrize("comments", [
    (), ("stile 1.0",), ("unwind verified: many samples, 0 differ",), ("unwind verified: 5 samples, 0 differ, or so",),
    ("x unwind verified: 5 samples, 0 differ",),
    ("unwind verified: 5 samples, 0 differ", "unwind verified: 5 samples, 1 differ")], ids=range(6))
def test_nothing_said_is_no_verdict(comments):
    with pytest.raises(AssertionError):
        verdict([told("unwind verified: 7 samples, 0 differ"), told(*comments)])


# --- Workloads

PYTHON_SCRIPT = r"""
import json, re, sys, time
rows = [{"id": i, "name": f"user{i * 7919 % 1000}", "tags": [str(i % k) for k in (2, 3, 5)]} for i in range(500)]
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    text = json.dumps(rows)
    back = json.loads(text)
    words = re.findall(r'"name": "(\w+?)(\d+)"', text)
    index = {}
    for name, number in words:
        index.setdefault(int(number) % 97, set()).add(name + number)
    re.sub(r"(\d)(\d*)", r"\2\1", text)
    sorted(back, key=lambda r: (r["name"], -r["id"]))
"""

# Calls that stay in the interpreter's loop, and calls that go through C functions and deepen its stack.
PYTHON_RECURSION = r"""
import sys, time
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
def through_c(n):
    return max([n], key=lambda x: through_c(x - 1) if x else 0)
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    fibonacci(15)
    for depth in range(1, 60):
        through_c(depth)
"""

NODE_SCRIPT = r"""
let seed = 42;
function random() { seed = (seed * 1103515245 + 12345) & 0x7fffffff; return seed; }
const end = Number(process.argv[2]) * 1e6;
for (let used = 0; used < end; ) {
    const rows = Array.from({length: 5000}, () => ({id: random(), name: "user" + (random() % 1000)}));
    rows.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.id - b.id);
    const text = JSON.stringify(rows);
    JSON.parse(text);
    text.match(/"name":"user(\d+?)7"/g);
    text.replace(/(\d)(\d*)/g, "$2$1");
    const usage = process.cpuUsage();
    used = usage.user + usage.system;
}
"""

PERL_SCRIPT = r"""
my $seed = 42;
sub next_one { $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return $seed; }
sub depth { my $n = shift; return $n ? 1 + depth($n - 1) : 0; }
while ((times)[0] < $ARGV[0]) {
    my %words;
    $words{"word" . (next_one() % 1000)} .= "x$_," for 1 .. 5000;
    my @sorted = sort { length $words{$a} <=> length $words{$b} or $a cmp $b } keys %words;
    my $text = join " ", map { "$_=$words{$_}" } @sorted;
    my $count = () = $text =~ /x(\d+?)7,/g;
    $text =~ s/(\d)(\d*)/$2$1/g;
    depth(80);
}
"""

SQL = "\n".join([
    "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, part INTEGER, weight REAL);",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO items "
    "SELECT i, 'item' || (i * 7919 % 9973), i * 31 % 101, i * 0.5 FROM n;",
    "CREATE INDEX by_name ON items(name);",
    *(f"SELECT part, count(*), sum(weight), max(name) FROM items WHERE name LIKE '%{i}%' GROUP BY part ORDER BY 3 DESC;"
      for i in range(12)),
    *(f"SELECT count(*) FROM items a JOIN items b ON a.name = b.name AND a.part < b.part + {i};" for i in range(4)),
    "UPDATE items SET name = substr(name, 3) || upper(name) WHERE part % 3 = 0;",
    "SELECT count(DISTINCT name), group_concat(part, ';') IS NULL FROM items;",
])


def python(code):
    return lambda tmp, seconds: ([harness.PYTHON, "-c", code, seconds], {})


def compiler(count, *options):
    """Of a file with so many instances of templates."""
    def make(tmp, _):
        source = tmp / "generated.cc"
        source.write_text(generated_cxx(count))
        return [harness.tool("g++"), "-O2", *options, source, "-o", tmp / "generated.o"], {}
    return make


def node(tmp, seconds):
    script = tmp / "script.js"
    script.write_text(NODE_SCRIPT)
    return [harness.tool("node"), script, seconds], {}


def openssl(_, seconds):
    """Five measurements: each algorithm, and RSA's two operations."""
    return [harness.tool("openssl"), "speed", "-seconds", str(max(1, round(seconds / 5))), "-bytes", "8192",
            "aes-128-cbc", "sha256", "sha512", "rsa2048"], {}


# What makes (arguments, options of harness.run) for a directory and so many seconds. One that is shorter is run again
# until it has used as much.
WORKLOADS = {
    "python": python(PYTHON_SCRIPT),
    "python_recursion": python(PYTHON_RECURSION),
    "cc1plus_parse": compiler(20, "-fsyntax-only"),
    "cc1plus": compiler(4, "-c"),
    "node": node,
    "sqlite3": lambda tmp, _: ([harness.tool("sqlite3"), ":memory:"], {"stdin": SQL.encode()}),
    "perl": lambda tmp, seconds: ([harness.tool("perl"), "-e", PERL_SCRIPT, seconds], {}),
    "throwing": lambda tmp, seconds: ([harness.program("throwing"), round(1000 * seconds)], {}),
    "odd_frames": lambda tmp, seconds: ([harness.program("odd_frames"), round(1000 * seconds / 15)], {}),
    "signals": lambda tmp, seconds: ([harness.program("nested_signals"), "anywhere", round(1000 * seconds)], {}),
    "openssl": openssl,
}


@pytest.fixture(scope="module")
def table():
    """Rows that are printed at the end if somebody has asked for so many seconds."""
    rows = []
    yield rows
    if ASKED and rows:
        print(f"\n\n{'workload':20} {'samples':>10} {'differ':>8}")
        for name, v in rows:
            print(f"{name:20} {v.samples:10} {v.differ:8}")
            for line in v.lines[:4]:
                print(f"    {line}")
        print(f"{'all':20} {sum(v.samples for _, v in rows):10} {sum(v.differ for _, v in rows):8}")


# Without a frame for a barrier: those are never on the innermost eight, nor placed by walks through a signal frame.
SHALLOW = {"openssl", "odd_frames", "signals"}
# Barriers switch themselves off: gcc's compilers have an unwinder to themselves. (Their assembler has none, and may have some.)
OFF = {"cc1plus_parse", "cc1plus"}


@pytest.mark.parametrize("barriers", ["off", "on", "all"] if ASKED else ["off", "all"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_both_walkers_agree(name, barriers, tmp_path, table, mark):
    argv, options = WORKLOADS[name](tmp_path, SECONDS)
    env = {"PROFILE_DEBUG": harness.debug(f"verifyunwind={2 if ASKED else 1}"), "PROFILE_BARRIERS": barriers}
    total, counts, off, used, runs = Verdict(0, 0, []), Counter(), set(), 0, 0
    table.append((f"{name} {barriers}", total))
    while used < SECONDS * 1e9 * 0.9:
        directory = tmp_path / f"profiles{runs}"
        directory.mkdir()
        r = harness.run(argv, profile=directory / "out.pb.gz", hz=HZ, env=env, timeout=600 + 20 * SECONDS, **options)
        profiles = all_profiles(directory / "out.pb.gz", mark)
        total = add(total, verdict(profiles))
        for p in profiles:
            told = pprof.barriers(p)
            off.add(told.pop("off", None))
            counts.update(told)
        table[-1] = (f"{name} {barriers}", total)
        assert r.status == 0, (r, total)
        assert ASKED or total.differ == 0, total
        used += r.cpu_ns
        runs += 1
        assert r.cpu_ns > 100e6, r  # otherwise it would go on for long
    assert total.differ == 0 and total.samples >= LEAST_PER_SECOND * SECONDS, total
    if barriers == "off":
        assert not counts
    elif name in OFF:
        assert "cc1plus has an unwinder to itself" in off, off
    elif name not in SHALLOW:
        assert min(counts["placed"], counts["hit"], counts["saved"]) > 0, counts


UNCOPIED = re.compile(r"unwind not verified: \d+ samples, whose reference came to no end; (\d+), of whose stack .*")


@pytest.mark.parametrize("way", ["anywhere", "anywhere_alternate"])
def test_walks_through_signal_frames(out, mark, way):
    """What a handler interrupted on its own stack is compared; where it has another stack there is no copy to compare,
    and that is said."""
    r = harness.run([harness.program("nested_signals"), way, "2000"], profile=out, hz=HZ,
                    env={"PROFILE_DEBUG": harness.debug("verifyunwind=2")})
    assert r.status == 0, r
    p, = all_profiles(out, mark)
    uncopied, = (int(m.group(1)) for m in map(UNCOPIED.fullmatch, p.comments) if m)
    crossed, v = p.cum("count")["on_first"], verdict([p])
    assert crossed > 0.1 * p.count and v.differ == 0
    assert v.samples + uncopied > 0.9 * p.count, (v, p.comments)
    assert uncopied == 0 if way == "anywhere" else uncopied > 0.5 * crossed, (v, p.comments)
