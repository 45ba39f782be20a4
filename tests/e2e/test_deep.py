"""Programs whose stacks are thousands of frames deep, sampled often: stacks are whole, with barriers on them and without.

Without barriers each frame of each sample passes through the buffers to the collector, which have room for so many only:
then nothing else is missing. With barriers a sample is what is new on its stack.
"""

import re
from collections import namedtuple

import pytest

import harness
import pprof

HZ = 4000
WHOLE = 0.97  # of the samples
MODES = ["off", "on", "all"]

BARRIERS = re.compile(r"stack barriers: (?P<mode>\w+); placed (?P<placed>\d+), hit (?P<hit>\d+), "
                      r"retired (?P<retired>\d+), restored (?P<restored>\d+); "
                      r"frames saved (?P<saved>\d+) of (?P<of>\d+); "
                      r"samples without a stack because it was locked (?P<locked>\d+)")
Barriers = namedtuple("Barriers", "mode placed hit retired restored saved of locked")


def barriers_of(p):
    """What the comments say of barriers, or None."""
    said = [m for m in map(BARRIERS.fullmatch, p.comments) if m]
    assert len(said) <= 1, said
    return Barriers(**{k: v if k == "mode" else int(v) for k, v in said[0].groupdict().items()}) if said else None


def test_what_is_said_of_barriers_is_read():
    pb = pprof.pb2.Profile()
    pb.string_table.extend(["", "stile 1.0", "stack barriers: all; placed 1234, hit 1200, retired 20, restored 3; frames "
                            "saved 45678 of 56789; samples without a stack because it was locked 0"])
    pb.comment.append(1)
    assert barriers_of(pprof.Profile(pb.SerializeToString())) is None
    pb.comment.append(2)
    assert barriers_of(pprof.Profile(pb.SerializeToString())) == ("all", 1234, 1200, 20, 3, 45678, 56789, 0)


def assert_whole(p, mode, depth, least_ns):
    """Enough samples, some of them so deep, and what share of them has all its frames."""
    ends = p.stacks_by_end()
    total = sum(ends.values())
    assert p.ns > least_ns, p.ns
    assert max(s.labels["depth"] for s in p.samples) >= depth
    whole = ends["whole"] + (ends["[buffer full]"] if mode == "off" else 0)
    assert whole >= WHOLE * total, ends.most_common(8)


def assert_saved(p, mode):
    """Barriers were there and did something; without them nothing of the kind is told."""
    said = barriers_of(p)
    if mode == "off":
        assert said is None or said.placed == said.hit == said.saved == 0, said
        return
    assert said is not None, p.comments
    assert said.mode == mode and said.placed > 0 and said.hit > 0 and 0 < said.saved <= said.of, said


def run_both(argv, out, mode):
    """The same output and status, with a profile and without."""
    plain = harness.run(argv)
    profiled = harness.run(argv, profile=out, hz=HZ, env={"PROFILE_BARRIERS": mode, "PROFILE_CLOCK": "perf"})
    assert profiled.same == plain.same and plain.status == 0, (plain, profiled)


@pytest.mark.parametrize("mode", MODES)
def test_regular_expression(out, mode):
    """libstdc++ takes six frames for each character, and spends its time below them. (Eight thousand characters: what the
    file holds is frames by samples.)"""
    run_both([harness.program("deep_regex"), "8000", "20"], out, mode)
    p = pprof.load_ends(out)
    assert_whole(p, mode, 40000, 1e9)
    assert_saved(p, mode)


@pytest.mark.parametrize("mode", MODES)
def test_recursive_descent(out, mode):
    """Down and up again, all the time."""
    run_both([harness.program("deep_json"), "5000", "120"], out, mode)
    p = pprof.load_ends(out)
    assert_whole(p, mode, 9900, 1e9)
    assert_saved(p, mode)


def nested(count, depth):
    """Functions that return an expression in so many parentheses."""
    return "".join(f"int f{i}(int a) {{ return {'(' * depth}a{')' * depth}; }}\n" for i in range(count))


@pytest.mark.parametrize("mode", MODES)
def test_compiler(out, tmp_path, mark, mode):
    """A short file first: of what it has learned there, the collector makes use in the next program. It has an unwinder to
    itself, so that there are no barriers."""
    brief, deep = tmp_path / "brief.cc", tmp_path / "deep.cc"
    brief.write_text(nested(4000, 40))
    deep.write_text(nested(20, 2000))
    compiler = harness.run([harness.tool("g++"), "-print-prog-name=cc1plus"]).out.decode().strip()
    script = '"$1" -quiet -fsyntax-only "$2" && "$1" -quiet -fsyntax-only "$3"'
    run_both(["/bin/sh", "-c", script, "sh", compiler, brief, deep], out, mode)
    assert harness.wait_until(lambda: not harness.collectors(mark), 120), "a collector does not end"
    p, = (p for p in map(pprof.load_ends, out.parent.glob("*.pb.gz")) if any("deep.cc" in c and "/bin/sh" not in c
                                                                  for c in p.comments))
    assert_whole(p, "off", 9000, 0.5e9)
    told = pprof.barriers(p)
    assert mode == "off" or (told["off"] == "cc1plus has an unwinder to itself" and told["placed"] == 0), p.comments
