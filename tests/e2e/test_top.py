"""`stile top` agrees with the file, and with `go tool pprof -top`."""

import re

import pytest

import harness
import pprof


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("top") / "out.pb.gz"
    r = harness.run([harness.program("split"), "2", "3000"], profile=path, hz=harness.TICK_HZ)
    assert r.status == 0
    return path


def top(path, *options):
    r = harness.run([harness.STILE, "top", *options, path], timeout=60)
    assert (r.status, r.err) == (0, b"")
    return r.out.decode()


def row(text, function):
    found = [line for line in text.splitlines() if line.split() and line.split()[-1].startswith(function)]
    assert len(found) == 1, (function, text)
    return found[0]


def seconds_of(text):
    """The times and shares of a row: [(nanoseconds)...], [shares...]."""
    units = {"s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1}
    times = [float(n) * units[u] for n, u in re.findall(r"(?<![\w.])([\d.]+) ?(s|ms|us|µs|ns)\b", text)]
    shares = [float(n) / 100 for n in re.findall(r"([\d.]+) ?%", text)]
    return times, shares


def test_flat_and_cumulative(profile):
    p = pprof.valid(profile)
    text = top(profile, "-n", "100")  # they have no time of their own: what stands before them by name may be many
    for function in ("spin_a", "spin_b", "spin_c"):
        times, shares = seconds_of(row(text, function))
        # Shown with two decimals.
        assert any(t == pytest.approx(p.cum()[function], rel=0.01, abs=6e6) for t in times), (times, p.cum()[function])
        assert any(s == pytest.approx(p.cum()[function] / p.ns, abs=0.001) for s in shares), shares
    rank = {function: (-p.flat()[function], function) for function in ("spin_a", "spin_b", "spin_c")}  # as pprof ranks them
    assert sorted(rank, key=text.index) == sorted(rank, key=rank.get), (rank, text)


def test_count_is_there(profile):
    p = pprof.valid(profile)
    assert re.search(rf"\b{p.count}\b", top(profile).replace(",", "")), p.count


def test_limit(profile):
    short = top(profile, "-n", "2")
    assert sum(f in short for f in ("spin_a", "spin_b", "spin_c")) <= 2
    assert len(short.splitlines()) < len(top(profile, "-n", "100").splitlines())


def test_by_cumulative(profile):
    """Whoever calls comes before whom he calls."""
    text = top(profile, "--cum", "-n", "100")
    assert text.index("thread_main") < text.index("spin_a")


def test_by_line(profile):
    assert re.search(r"(split\.c|work\.h):\d+", top(profile, "--lines"))


def test_same_as_pprof(profile):
    r = harness.run([harness.tool("go"), "tool", "pprof", "-top", "-nodecount=0", "-nodefraction=0", profile],
                    env={"HOME": profile.parent}, timeout=60)
    assert r.status == 0, r
    ours = top(profile, "-n", "1000")
    for function in ("spin_a", "spin_b", "spin_c", "thread_main"):
        theirs = seconds_of(row(r.out.decode(), function))[0]
        mine = seconds_of(row(ours, function))[0]
        assert mine[-1] == pytest.approx(theirs[-1], rel=0.01), (function, mine, theirs)


def test_uncompressed(profile, tmp_path):
    """Whoever opened the file before and stored it unpacked."""
    path = tmp_path / "out.pb"
    path.write_bytes(pprof.load(profile).data)
    assert top(path) == top(profile).replace(str(profile), str(path))


def test_foreign_profile(profile, tmp_path):
    """One that pprof has written."""
    path = tmp_path / "pprof.pb.gz"
    r = harness.run([harness.tool("go"), "tool", "pprof", "-proto", f"-output={path}", profile],
                    env={"HOME": tmp_path}, timeout=60)
    assert r.status == 0, r
    assert "spin_a" in top(path, "-n", "100")


def test_head_closes_the_pipe(profile):
    r = harness.run(["/bin/bash", "-c", '"$@" | head -n 1; echo "${PIPESTATUS[1]}"', "bash", harness.STILE, "top",
                     profile], timeout=60)
    assert r.err == b"" and r.out.endswith(b"0\n")
