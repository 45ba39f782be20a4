"""What cannot be done is said once, in one line, and costs the program nothing."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import harness
import pprof


def app(*way):
    return [harness.program("ending"), "100", *(way or ("exit",))]


def assert_unprofiled(r, *words):
    """The program ran as if nothing had been asked; one line says why."""
    assert (r.status, r.out) == (7, b"working\ndone\n"), r
    line = harness.one_line(r.err)
    for word in words:
        assert word in line, line
    assert r.seconds < 15


@pytest.mark.parametrize("hz", [1, 10, 99, 100, 250, 1000, 4000])
def test_rate_that_is_one(out, hz):
    """At 1 Hz too: in two seconds of CPU time there are one to three samples."""
    ms = 2000 if hz == 1 else 400
    r = harness.run([harness.program("ending"), ms, "exit"], profile=out, hz=hz)
    assert (r.status, r.err) == (7, b"")
    p = pprof.valid(out)
    assert abs(p.ns - ms * 10**6) <= max(10**9 / hz * 1.1, 0.1 * ms * 10**6), p.ns
    assert p.count * p.pb.period == pytest.approx(p.ns, rel=0.01, abs=2 * p.pb.period) # time is exact, counts are whole
    assert any(f"{hz} Hz requested" in c for c in p.comments), p.comments


@pytest.mark.parametrize("name", ["", "nonsense", "SIGUSR3", "usr1", "0", "-1", "-10", "10x", "65", "1000", "32", "33",
                                  "SIGRTMIN+31", "SIGKILL", "STOP", "SIGSEGV", "BUS", "ILL", "FPE", "TRAP", "ABRT",
                                  "SYS", "CHLD", "CONT", "TSTP", "TTIN", "TTOU", "9", "11"])
def test_signals_that_cannot_be(out, name):
    r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"PROFILE_SIGNAL": name})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert f"PROFILE_SIGNAL={name}" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("depth", ["0", "-1", "1e9", "1000000000", "abc", "10x", " ", "99999999999999999999", "0x10",
                                   "1.5", "+-3"])
def test_depth_that_is_none(out, depth):
    r = harness.run(app(), profile=out, env={"PROFILE_DEPTH": depth})
    assert_unprofiled(r, "PROFILE_DEPTH", depth)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("barriers", ["", "1", "ON", "on ", "yes", "on,all"])
def test_barriers_that_are_none(out, barriers):
    r = harness.run(app(), profile=out, env={"PROFILE_BARRIERS": barriers})
    assert_unprofiled(r, f"PROFILE_BARRIERS={barriers} is not off, auto, on or all")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("barriers", ["off", "auto", "on", "all"])
def test_barriers_that_are_some(out, barriers):
    r = harness.run(app(), profile=out, env={"PROFILE_BARRIERS": barriers})
    assert (r.status, r.err) == (7, b"")
    pprof.valid(out)


def test_few_descriptors(out):
    """A small limit is no reason to fail the program."""
    for limit in (4, 8, 16, 64):
        script = f'ulimit -n {limit}; exec "$@"'
        r = harness.run(["/bin/bash", "-c", script, "bash", *app()], profile=out)
        assert (r.status, r.out) == (7, b"working\ndone\n"), (limit, r)
        assert len(harness.lines(r.err)) <= 1
        if not r.err:
            pprof.valid(out)


# --- stile record


def record(*arguments, **options):
    return harness.run([harness.STILE, "record", *arguments], timeout=60, **options)


def assert_usage_error(r):
    assert r.status == 2 and r.out == b"", r
    return harness.one_line(r.err)


@pytest.mark.parametrize("arguments", [
    (), ("--",), ("-o",), ("-F",), ("-o", "x.pb.gz"), ("--nonsense",), ("-Z", "true"), ("--nonsense", "true"),
    ("-F", "0", "true"), ("-F", "abc", "true"), ("-F", "-1", "true"), ("-F", "1e9", "true"),
    ("-F", "99999999999999999999", "true")], ids=" ".join)
def test_record_usage(out, arguments):
    assert_usage_error(record(*arguments, cwd=out.parent))
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("where", ["/nonexistent/directory/out.pb.gz", "/etc/passwd/out.pb.gz", ""])
def test_record_to_a_place_that_cannot_be_written(where):
    assert_usage_error(record("-o", where, "--", "/bin/true"))


@pytest.mark.parametrize("command,status", [("/nonexistent/program", 127), ("no-such-command-anywhere", 127),
                                            ("/etc/passwd", 126), ("/", 126)])
def test_record_command_that_cannot_run(out, command, status):
    """As a shell has it."""
    r = record("-o", out, "--", command, "x")
    assert r.status == status and r.out == b"", r
    assert command in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


def test_record_nothing_of_its_own_library(out, tmp_path):
    """The tool alone, without libstile.so where it looks for it."""
    (tmp_path / "bin").mkdir()
    copy = tmp_path / "bin" / "stile"
    shutil.copy(harness.STILE, copy)
    r = harness.run([copy, "record", "-o", out, "--", *app()], timeout=60)
    harness.one_line(r.err)
    assert r.status != 0


# --- stile top, and the tool itself


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("top") / "out.pb.gz"
    harness.run([harness.program("split"), "2", "500"], profile=path)
    return harness.wait_for_file(path)


def top(path, *more):
    return harness.run([harness.STILE, "top", *more, path], timeout=60)


def test_top_of_what_is_not_there(tmp_path):
    assert "nothing.pb.gz" in assert_usage_error(top(tmp_path / "nothing.pb.gz"))


def test_top_of_a_directory(tmp_path):
    assert_usage_error(top(tmp_path))


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"text that is no profile\n" * 100,
    b"\x7fELF" + b"\0" * 1000, b"\n" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x1f\x8b" + bytes(range(256)),
    b"--- contention:\ncycles/second = 1\n"], ids=range(10))
def test_top_of_what_is_no_profile(tmp_path, content):
    path = tmp_path / "x.pb.gz"
    path.write_bytes(content)
    assert_usage_error(top(path))


@pytest.mark.parametrize("path", ["/dev/null", "/etc/passwd", harness.PYTHON, ""])
def test_top_of_what_is_foreign(path):
    assert_usage_error(top(path))


@pytest.mark.parametrize("keep", [1, 5, 10, 11, 18, 100, -1, -4, -8, -9, -100])
def test_top_of_a_truncated_file(profile, tmp_path, keep):
    data = profile.read_bytes()
    path = tmp_path / "cut.pb.gz"
    path.write_bytes(data[:keep])
    assert_usage_error(top(path))


def test_top_of_damaged_files(profile, tmp_path):
    """Whatever the bytes say: a table, or one line. Both compressed and not, so that damage is seen by each layer."""
    raw = pprof.load(profile).data
    packed = profile.read_bytes()
    for n in range(150):
        data = bytearray(raw if n % 3 else packed)
        for k in range(1 + n % 4):
            data[(n * 7919 + k * 104729) % len(data)] ^= 1 << (n + k) % 8 | (0xFF if n % 5 == 0 else 0)
        path = tmp_path / ("x.pb" if n % 3 else "x.pb.gz")
        path.write_bytes(data)
        r = top(path)
        assert r.status in (0, 2), (n, r)
        if r.status == 2:
            harness.one_line(r.err)


def test_top_of_a_bomb(tmp_path):
    """A small file that unpacks to 2 GiB: refused, or at least no crash and no endless wait."""
    path = tmp_path / "bomb.pb.gz"
    with open(path, "wb") as f:
        zeros = subprocess.Popen(["head", "-c", str(2 << 30), "/dev/zero"], stdout=subprocess.PIPE)
        subprocess.run(["gzip", "-1"], stdin=zeros.stdout, stdout=f, check=True)
        zeros.stdout.close()
        zeros.wait()
    assert_usage_error(top(path))


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("--nonsense",), ("top",), ("top", "--nonsense", "x"),
                                       ("top", "-n", "abc", "x"), ("top", "-n", "-1", "x"), ("top", "a", "b")],
                         ids=" ".join)
def test_usage(arguments):
    assert_usage_error(harness.run([harness.STILE, *arguments], timeout=60))


@pytest.mark.parametrize("arguments", [("--help",), ("help",), ("record", "--help"), ("top", "--help"),
                                       ("--version",)], ids=" ".join)
def test_help(arguments):
    r = harness.run([harness.STILE, *arguments], timeout=60)
    assert r.status == 0 and r.err == b"" and r.out
    if "top" in arguments:
        assert all(option in r.out for option in (b"-n", b"--cum", b"--lines"))
    if "record" in arguments:
        assert all(option in r.out for option in (b"-o", b"-F", b"--verbose"))


def test_output_that_cannot_be_written():
    """A table that went nowhere is no success."""
    with open("/dev/full", "wb") as full:
        r = harness.run([harness.STILE, "--help"], stdout=full, timeout=60)
    assert r.status != 0
    harness.one_line(r.err)


def test_collector_by_hand():
    """Its verb is not for users: it says so, and does not hang."""
    r = harness.run([harness.STILE, "collect"], timeout=20)
    assert r.status == 2
    harness.one_line(r.err)


def test_library_named_by_a_relative_path(out):
    """The collector beside it is started in another directory."""
    env = {"LD_PRELOAD": os.path.relpath(harness.LIBRARY, harness.BUILD)}
    r = harness.run(app(), profile=out, env=env, cwd=harness.BUILD)
    assert (r.status, r.err) == (harness.run(app()).status, b"")
    pprof.valid(out)
