"""Programs that nobody here wrote: they do what they did, their profiles are whole, and pprof reads them."""

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

import harness
import pprof

PYTHON_SCRIPT = r"""
import hashlib, json, re
rows = [{"id": i, "name": f"user{i * 7919 % 1000}", "tags": [str(i % k) for k in (2, 3, 5)]} for i in range(3000)]
total = 0
for round in range(180):
    text = json.dumps(rows)
    back = json.loads(text)
    total += sum(len(r["tags"]) for r in back)
    words = re.findall(r'"name": "(\w+?)(\d+)"', text)
    total += len({w for w, n in words if int(n) % 3 == 0})
    total += len(re.sub(r"(\d)(\d*)", r"\2\1", text))
    digest = text.encode()
    for _ in range(5):
        digest = hashlib.sha256(digest).digest() + digest[: 200000]
print(total, hashlib.md5(digest).hexdigest())
"""

NODE_SCRIPT = r"""
let seed = 42;
function random() { seed = (seed * 1103515245 + 12345) & 0x7fffffff; return seed; }
let total = 0;
for (let round = 0; round < 160; round++) {
    const rows = Array.from({length: 10000},
        (_, i) => ({id: random(), name: "user" + (random() % 1000), tag: [i % 3]}));
    rows.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.id - b.id);
    const text = JSON.stringify(rows);
    total += JSON.parse(text).length;
    total += (text.match(/"name":"user(\d+?)7"/g) || []).length;
    total += text.replace(/(\d)(\d*)/g, "$2$1").length;
}
console.log(total);
"""


def generated_cxx(count=60):
    """A file that keeps the compiler busy: many instances of library templates."""
    parts = ["#include <algorithm>\n#include <functional>\n#include <map>\n#include <memory>\n#include <regex>\n"
             "#include <sstream>\n#include <string>\n#include <unordered_map>\n#include <vector>\n"]
    for i in range(count):
        parts.append(f"""
struct Item{i} {{ int key; std::string name; double weight[{i + 1}]; }};
static bool operator<(const Item{i} &a, const Item{i} &b) {{ return a.key < b.key; }}
std::string work{i}(std::vector<Item{i}> items) {{
    std::map<std::string, std::vector<Item{i}>> groups;
    std::unordered_map<int, std::shared_ptr<Item{i}>> index;
    std::stable_sort(items.begin(), items.end());
    std::function<int(const Item{i} &)> weigh = [](const Item{i} &x) {{ return x.key * {i + 3}; }};
    for (auto &item : items) {{
        groups[item.name].push_back(item);
        index[weigh(item)] = std::make_shared<Item{i}>(item);
    }}
    std::ostringstream out;
    for (auto &g : groups)
        out << g.first << g.second.size() << index.size();
    return std::regex_replace(out.str(), std::regex("a{i}+"), "b");
}}
""")
    return "".join(parts)


def pprof_tool(home, *arguments):
    r = harness.run([harness.tool("go"), "tool", "pprof", *arguments], env={"HOME": home, "PPROF_TMPDIR": home},
                    timeout=120)
    assert r.status == 0, r
    return r.out.decode(errors="replace")


def all_profiles(out):
    """The program's and its children's. The root waits for its own file only."""
    pprof.valid(out)
    previous, stable = None, 0
    while stable < 3:
        names = sorted(p for p in out.parent.glob("*.pb.gz") if not p.name.startswith("."))
        stable = stable + 1 if names == previous else 0
        previous = names
        harness.wait_until(lambda: False, 0.3)
    return [pprof.valid(p) for p in previous]


def assert_whole(profiles):
    """At most 0.5 % of the time has no stack, and 98 % of it reaches the start, where that can be."""
    assert pprof.bracketed_share(profiles) < 0.005, (pprof.bracketed_ns(profiles), sum(p.ns for p in profiles))
    share, broken = pprof.complete_share(profiles)
    assert share > 0.98, (share, broken.most_common(8))


def places(p):
    """What every stack and label has in values, in terms that survive a renumbering."""
    total = {}
    for raw, s in zip(p.pb.sample, p.samples):
        stack = []
        for i in raw.location_id:
            for f in p.locations[i]:
                place = (f.mapping.filename, f.mapping.build_id, pprof.file_offset(f)) if f.mapping else f.address
                stack.append((place, f.name, f.system_name, f.file, f.line))
        key = (tuple(stack), tuple(sorted(s.labels.items())))
        old = total.get(key, (0, 0))
        total[key] = (old[0] + s.count, old[1] + s.ns)
    return total


# Nothing is shown without a unit: a child that lived for less than its first tick.
PPROF_UNITS = {"": 0, "ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "mins": 60e9, "hrs": 3600e9}


def assert_pprof_reads(path, home):
    """-top, -traces and -peek show it, -proto keeps every value."""
    p = pprof.load(path)
    main = max(p.flat(), key=p.flat().get)
    top = pprof_tool(home, "-top", "-nodecount=0", "-nodefraction=0", path)
    assert "Type: cpu" in top and "Duration:" in top and "flat%" in top, top[:500]
    assert main.split("(")[0].split("<")[0] in top
    shown = re.search(r"Total samples = ([\d.]+)([a-z]*)", top)
    assert float(shown.group(1)) * PPROF_UNITS[shown.group(2)] == pytest.approx(p.ns, rel=0.01)
    counts = pprof_tool(home, "-top", "-sample_index=samples", path)
    assert "Type: samples" in counts
    traces = pprof_tool(home, "-traces", path)
    assert traces.count("-----------+-") >= 2 and "tid:" in traces
    peek = pprof_tool(home, "-peek=.", path)
    assert "calls%" in peek
    again = Path(home) / "again.pb.gz"
    pprof_tool(home, "-proto", "-symbolize=none", f"-output={again}", path)
    q = pprof.load(again)
    assert places(q) == places(p)
    assert (q.sample_types, q.period_type, q.pb.period) == (p.sample_types, p.period_type, p.pb.period)
    assert (q.pb.time_nanos, q.pb.duration_nanos, q.comments) == (p.pb.time_nanos, p.pb.duration_nanos, p.comments)


def assert_protoc_reads(path):
    """The project's own schema knows every field that is in the file."""
    p = pprof.load(path)
    r = subprocess.run([harness.tool("protoc"), "--decode=perftools.profiles.Profile", f"-I{pprof.SCHEMA.parent}",
                        str(pprof.SCHEMA)], input=p.data, capture_output=True, check=False)
    assert r.returncode == 0 and r.stderr == b"", r.stderr
    text = r.stdout.decode()
    assert not re.search(r"^\s*\d+[ :{]", text, re.M), "a field that the schema does not know"
    assert text.count("\nsample {") == len(p.pb.sample)
    assert 'string_table: "cpu"' in text


def check(out, home, least_ns):
    """All claims about the profiles of one run, which took at least so much time."""
    profiles = all_profiles(out)
    assert sum(p.ns for p in profiles) > least_ns
    assert_whole(profiles)
    for p in profiles:
        path = out.with_name(p.name)
        if p.samples:
            assert_pprof_reads(path, home)
        assert_protoc_reads(path)
    return profiles


def run_both(argv, out, **options):
    plain = harness.run(argv, **options)
    profiled = harness.run(argv, profile=out, hz=harness.TICK_HZ, **options)
    assert profiled.same == plain.same
    return profiled


def test_python(out, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PYTHON_SCRIPT)
    r = run_both([harness.PYTHON, script], out)
    assert r.status == 0
    p, = check(out, tmp_path, 1.5e9)
    assert p.main_file == os.path.realpath(harness.PYTHON)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=30e6)
    assert any(name.startswith("PyEval_") or name.startswith("_PyEval_") for name in p.cum())
    assert any("python" in c and "script.py" in c for c in p.comments)


def test_xz(out, tmp_path):
    """Its workers block all signals."""
    data = tmp_path / "data"
    rnd = random.Random(1)
    words = [bytes(rnd.randrange(97, 123) for _ in range(rnd.randrange(2, 12))) for _ in range(5000)]
    data.write_bytes(b" ".join(rnd.choice(words) for _ in range(900000)))
    xz = [harness.tool("xz"), "-T2", "--block-size=1MiB", "-k", "-c", data]
    r = run_both(xz, out)
    assert r.status == 0 and r.out[:6] == b"\xfd7zXZ\0"
    p, = check(out, tmp_path, 1.5e9)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=30e6)
    workers = [ns for tid, ns in p.by_label("tid").items() if tid != p.samples[0].labels["pid"]]
    assert len(workers) >= 2 and sum(workers) > 0.8 * p.ns


def test_node(out, tmp_path):
    script = tmp_path / "script.js"
    script.write_text(NODE_SCRIPT)
    r = run_both([harness.tool("node"), script], out)
    assert r.status == 0
    p, = check(out, tmp_path, 1e9)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=50e6)
    names = p.cum()
    assert any("JsonStringif" in n or "JsonParse" in n for n in names), names.most_common(20)


def test_gcc_and_its_children(out, tmp_path):
    source = tmp_path / "big.cc"
    source.write_text(generated_cxx())
    objects = [tmp_path / "plain.o", tmp_path / "profiled.o"]
    compiler = [harness.tool("g++"), "-O2", "-c", source, "-o"]
    plain = harness.run([*compiler, objects[0]])
    r = harness.run([*compiler, objects[1]], profile=out, hz=harness.TICK_HZ)
    assert r.same == plain.same == (0, b"", b"")
    assert objects[0].read_bytes() == objects[1].read_bytes()
    profiles = check(out, tmp_path, 3e9)
    by_program = {os.path.basename(p.main_file): p for p in profiles}
    compiler_proper = by_program["cc1plus"]
    assert compiler_proper.ns > 3e9
    assert re.fullmatch(r"out\.\d+\.pb\.gz", compiler_proper.name)
    assert {f"out.{s.labels['pid']}.pb.gz" for s in compiler_proper.samples} == {compiler_proper.name}
    assert "as" in by_program or "x86_64-linux-gnu-as" in by_program
    assert sum(p.ns for p in profiles) == pytest.approx(r.cpu_ns, rel=0.03)


def test_openssl(out, tmp_path):
    """Hand-written assembler. What it prints depends on the machine's speed, so only the shape is compared."""
    argv = [harness.tool("openssl"), "speed", "-seconds", "1", "-bytes", "8192", "sha256", "sha512", "md5",
            "aes-128-cbc"]
    plain = harness.run(argv)
    r = harness.run(argv, profile=out, hz=harness.TICK_HZ)

    def shape(text):
        return re.sub(rb"[\d.]+", b"N", re.sub(rb" +", b" ", text))

    assert (r.status, shape(r.out), shape(r.err)) == (plain.status, shape(plain.out), shape(plain.err))
    assert r.status == 0
    p, = check(out, tmp_path, 1.5e9)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=30e6)
    assert any("libcrypto" in m.filename for m in p.mappings.values())


def make_repository(path):
    """Some thousand objects with a history, from one stream."""
    rnd = random.Random(7)
    lines = [f"line {i} {rnd.random()}\n" for i in range(400)]
    stream = []
    for n in range(700):
        for _ in range(12):
            lines[rnd.randrange(len(lines))] = f"changed in {n} {rnd.random()}\n"
        text = "".join(lines)
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {1600000000 + n} +0000\ndata 2\nx\n"
                      f"M 100644 inline file{n % 40}.txt\ndata {len(text)}\n{text}\n")
    subprocess.run(["git", "init", "-q", "-b", "main", str(path)], check=True)
    subprocess.run(["git", "-C", str(path), "-c", "fastimport.unpackLimit=0", "fast-import", "--quiet"],
                   input="".join(stream).encode(), check=True)
    subprocess.run(["git", "-C", str(path), "config", "gc.auto", "0"], check=True)


def state_of(path):
    run = ["git", "-C", str(path)]
    fsck = subprocess.run([*run, "fsck", "--full"], capture_output=True, check=False)
    log = subprocess.run([*run, "rev-list", "--objects", "--all"], capture_output=True, check=True).stdout
    count = subprocess.run([*run, "count-objects", "-v"], capture_output=True, check=True, text=True).stdout
    return fsck.returncode, sorted(log.splitlines()), re.sub(r"size-?\w*: \d+", "", count)


def test_git(out, tmp_path):
    harness.tool("git")
    repositories = [tmp_path / "plain", tmp_path / "profiled"]
    for path in repositories:
        make_repository(path)
    argv = ["git", "-c", "gc.autoDetach=false", "gc", "--aggressive", "--prune=now"]
    plain = harness.run(argv, cwd=repositories[0])
    r = harness.run(argv, cwd=repositories[1], profile=out, hz=harness.TICK_HZ)
    assert r.same == plain.same and r.status == 0
    assert state_of(repositories[0]) == state_of(repositories[1])
    profiles = check(out, tmp_path, 0.8e9)
    assert any("pack-objects" in c for p in profiles for c in p.comments)
    assert sum(p.ns for p in profiles) == pytest.approx(r.cpu_ns, rel=0.03, abs=50e6)


def test_two_profiles_compare(out, tmp_path):
    """pprof subtracts one run from another: their types and periods are the same."""
    other = out.with_name("other.pb.gz")
    for path in (out, other):
        assert harness.run([harness.program("split"), "1", "1000"], profile=path).status == 0
    text = pprof_tool(tmp_path, "-top", "-nodecount=0", f"-diff_base={other}", out)
    assert "flat%" in text
    merged = tmp_path / "merged.pb.gz"
    pprof_tool(tmp_path, "-proto", "-symbolize=none", f"-output={merged}", out, other)
    assert pprof.load(merged).ns == pprof.load(out).ns + pprof.load(other).ns


def test_counts_of_reasons_are_in_the_comments(out):
    """Nothing is lost silently: whatever is bracketed is counted by name."""
    assert harness.run([harness.program("split"), "2", "500"], profile=out).status == 0
    p = pprof.valid(out)
    text = "\n".join(p.comments)
    for reason in pprof.bracketed_ns([p]):
        assert reason.strip("[]") in text, (reason, text)
    assert re.search(r"\b100 Hz requested, [\d.]+ signals per second", text), text
    json.dumps(p.comments)
