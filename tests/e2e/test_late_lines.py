"""Debug information that takes minutes to read keeps nobody waiting: the file has names, and says what it has not."""

import re

import harness
import pprof

BLOCK_TYPES = [("contentions", "count"), ("delay", "nanoseconds")]
SPIN_MS = 300
WAIT_S = 20  # instead of two, on a busy machine; a writer that looks for lines to the end is given 60


def assert_names_without_lines(p, function):
    late = [c for c in p.comments if c.startswith("names: time was up")]
    assert len(late) == 1 and re.search(r" for [1-9]\d* of \d+ places, and names for \d+ of them$", late[0]), p.comments
    frames = [f for s in p.samples for f in s.frames if f.name == function]
    assert frames and all((f.file, f.line) == ("", 0) for f in frames), frames

def test_the_program_does_not_wait(out):
    r = harness.run([harness.program("slow_lines"), SPIN_MS], profile=out, hz=1000)
    assert (r.status, r.err) == (0, b"") and r.seconds < SPIN_MS / 1000 + WAIT_S, r
    assert out.exists()
    assert_names_without_lines(pprof.valid(out), "spin")


def test_record_says_so(out):
    r = harness.run([harness.STILE, "record", "-F", "1000", "-o", out, "--", harness.program("slow_lines"), SPIN_MS])
    assert r.status == 0 and r.seconds < SPIN_MS / 1000 + WAIT_S, r
    assert_names_without_lines(pprof.valid(out), "spin")
    said = [line for line in harness.lines(r.err) if "lines are left out for" in line]
    assert len(said) == 1 and re.fullmatch(
        r"stile: lines are left out for \d+ places?, since looking them up took too long", said[0]), r


def test_two_files_share_the_time(out):
    """What the first took is not there for the second, which has its names all the same."""
    block = out.with_name("block.pb.gz")
    r = harness.run([harness.program("slow_lines"), SPIN_MS], profile=out, hz=1000, env={"PROFILE_BLOCK": str(block)})
    assert (r.status, r.err) == (0, b"") and r.seconds < SPIN_MS / 1000 + WAIT_S, r
    assert out.exists() and block.exists()
    assert_names_without_lines(pprof.valid(out), "spin")
    assert_names_without_lines(pprof.valid(block, sample_types=BLOCK_TYPES), "rest")
