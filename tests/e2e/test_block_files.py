"""The files of the blocking profile: named, announced and read like the CPU profile's, with it or without."""

import gzip
import re

import pytest

import harness
import pprof

TYPES = [("contentions", "count"), ("delay", "nanoseconds")]


def record(out, argv, *options, cwd=None):
    return harness.run([harness.STILE, "record", "-o", out, *options, "--", *argv], cwd=cwd)


def block_valid(path):
    """A blocking profile that pprof's readers take."""
    p = pprof.load(harness.wait_for_file(path))
    assert p.sample_types == TYPES and p.text(p.pb.default_sample_type) == "delay"
    assert p.period_type == TYPES[0] and p.pb.period == 1
    r = harness.run([harness.tool("go"), "tool", "pprof", "-tags", path], env={"HOME": path.parent}, timeout=60)
    assert r.status == 0, r
    return p


def names(directory):
    return sorted(f.name for f in directory.iterdir() if f.name.endswith(".gz"))


def test_default_name(out):
    r = record(out, ["sleep", "0.2"], "--block")
    block = out.parent / (out.name.removesuffix(".pb.gz") + ".block.pb.gz")
    assert r.status == 0 and names(out.parent) == sorted([out.name, block.name])
    pprof.valid(out)
    p = block_valid(block)
    assert "command: sleep 0.2" in p.comments
    assert re.search(rf"^stile: wrote {re.escape(str(block))}: [\d ]+ waits?, \d+\.\d\d s blocked",
                     r.err.decode(), re.MULTILINE), r.err


def test_name_and_rate(out):
    """The value stands behind a `=`: the next word may be the command."""
    block = out.parent / "waits.pb.gz"
    r = harness.run([harness.STILE, "record", "-o", out, f"--block={block}", "--block-rate", "1", "true"])
    assert r.status == 0 and names(out.parent) == sorted([out.name, block.name])
    block_valid(block)
    r = harness.run([harness.STILE, "record", "-o", out, "--block", "true"])
    assert r.status == 0 and len(names(out.parent)) == 3


def test_verbose_shows_both(out):
    r = record(out, ["true"], "--block", "-v")
    said = re.findall(r"^stile: comments of (\S+):$", r.err.decode(), re.MULTILINE)
    assert [path.rsplit("/", 1)[1] for path in said] == [out.name, out.name.replace(".pb.gz", ".block.pb.gz")]
    assert "stack ownership: " in r.err.decode()


@pytest.mark.parametrize("options", [
    ("--block-rate", "0"), ("--block-rate", "1e9"), ("--block-rate", "1000000001"), ("--block-rate", "-1"),
    ("--block-rate=",), ("--block=x.txt",), ("--block=out.pb.gz",)], ids=" ".join)
def test_bad_options(out, options):
    r = harness.run([harness.STILE, "record", "-o", "out.pb.gz", *options, "true"], cwd=out.parent)
    assert r.status == 2 and r.out == b""
    harness.one_line(r.err)
    assert names(out.parent) == []


def test_target_is_checked_first(out):
    r = record(out, ["true"], f"--block={out.parent}/missing/x.pb.gz")
    assert r.status == 2 and "missing/x.pb.gz" in harness.one_line(r.err)
    assert names(out.parent) == []


def test_numbers(out):
    """The files of one time have one number."""
    r = record(out, ["sleep", "0.7"], "--block", "-i", "300ms")
    assert r.status == 0
    stem = out.name.removesuffix(".pb.gz")
    cpu = [n for n in names(out.parent) if ".block." not in n]
    blocks = [n for n in names(out.parent) if ".block." in n]
    assert len(cpu) >= 2 and cpu[0] == f"{stem}.1.pb.gz"
    assert blocks == [n.replace(stem, stem + ".block", 1) for n in cpu]
    for name in blocks:
        block_valid(out.parent / name)


def test_block_alone(out):
    block = out.parent / "waits.pb.gz"
    r = harness.run(["sleep", "0.2"], env={"LD_PRELOAD": harness.LIBRARY, "PROFILE_BLOCK": block})
    assert r.status == 0
    assert r.err == b"" and names(out.parent) == [block.name]
    block_valid(block)


@pytest.fixture(scope="module", name="made")
def fixture_made(tmp_path_factory):
    """A blocking profile with numbers that are known."""
    strings = [""]

    def index(text):
        if text not in strings:
            strings.append(text)
        return strings.index(text)
    pb = pprof.pb2.Profile()
    for name, unit in TYPES:
        pb.sample_type.add(type=index(name), unit=index(unit))
    pb.default_sample_type = index("delay")
    pb.period_type.type, pb.period_type.unit, pb.period = index("contentions"), index("count"), 1
    pb.time_nanos, pb.duration_nanos = 1700000000 * 10**9, 10**10
    for i, name in enumerate(["pthread_mutex_lock", "read", "caller"], 1):
        pb.function.add(id=i, name=index(name), system_name=index(name))
        pb.location.add(id=i, address=i).line.add(function_id=i, line=i)
    for stack, count, ns, key, why in (((1, 3), 12345, 2 * 10**9, "reason", "mutex"),
                                       ((2, 3), 7, 5 * 10**8, "reason", "read"),
                                       ((3,), 9, 0, "wakes", "mutex")):
        sample = pb.sample.add(location_id=stack, value=(count, ns))
        sample.label.add(key=index(key), str=index(why))
    pb.string_table.extend(strings)
    path = tmp_path_factory.mktemp("made") / "made.pb.gz"
    path.write_bytes(gzip.compress(pb.SerializeToString()))
    return path


def test_top(made):
    """Delay by default; how many waits beside it."""
    r = harness.run([harness.STILE, "top", made])
    assert r.status == 0 and r.err == b""
    lines = r.out.decode().splitlines()
    assert "Type: delay" in lines
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["flat"])
    assert lines[head].split()[-1] == "contentions"
    rows = {line.split()[-1]: line.split() for line in lines[head + 1:]}
    assert rows["pthread_mutex_lock"][0] in ("2s", "2.00s", "2000ms") and rows["pthread_mutex_lock"][-2] == "12345"
    assert rows["read"][-2] == "7" and rows["caller"][-2] == "9"
    assert lines[head].index("contentions") + len("contentions") == lines[head + 1].index("12345") + 5
    r = harness.run([harness.STILE, "top", "--sample-type", "contentions", made])
    assert r.status == 0 and "12345" in r.out.decode() and "Type: contentions" in r.out.decode()


def test_top_says_what_pprof_says(made):
    r = harness.run([harness.tool("go"), "tool", "pprof", "-top", made], env={"HOME": made.parent}, timeout=60)
    theirs = {line.split()[-1]: line.split()[0] for line in r.out.decode().splitlines() if "%" in line}
    ours = harness.run([harness.STILE, "top", made]).out.decode()
    for function in ("pthread_mutex_lock", "read"):
        row = next(line for line in ours.splitlines() if line.endswith(" " + function))
        assert row.split()[0] == theirs[function]
