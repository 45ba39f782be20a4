"""PROFILE_DEBUG=checkstackownership=1, which is on in whatever a test starts: who reads a stack that is not his ends
the program, and both are named. The violations are planted in a library of their own (tests/faults)."""

import re
import signal
import subprocess

import pytest

import harness
import torture

HZ = 1000
# A violation by its name: where it happens, and what its reader is called.
PLANTED = {
    "owner-sample": (["depth", "60", "400"], "a sample's walk"),
    "owner-barriers": (["depth", "200", "1000"], "a (placing|change) of barriers"),
    "owner-remove": (["depth", "60", "100"], "a change of barriers"),
    "owner-executes": (["loader", "plugin.so", "1"], "mutex"),
}
FRAME = re.compile(r"  #\d+ 0x[0-9a-f]+(?: (\S.*?)\+(0x[0-9a-f]+))?(?: \(.*\))?")
planted = pytest.mark.parametrize("fault", PLANTED)


def command(fault):
    name, *arguments = PLANTED[fault][0]
    return [harness.program(name), *(harness.program(a) if a.endswith(".so") else a for a in arguments)]


def run(out, fault, faults, **options):
    env = {"LD_PRELOAD": torture.FAULTY, "PROFILE_COLLECTOR": harness.STILE, "PROFILE_BARRIERS": "all",
           "STILE_FAULTS": faults, "STILE_FAULTS_REPORT": out.parent / "faults"}
    return harness.run(command(fault), profile=out, hz=HZ, env=env, timeout=60, **options)


def functions(path, offsets):
    """The functions that a file has at these places."""
    told = subprocess.run([harness.tool("addr2line"), "-f", "-e", path, *offsets], capture_output=True, text=True,
                          timeout=60, check=True)
    return set(told.stdout.split())


@planted
def test_violation_is_found(out, fault):
    """By what every test has in its environment, and nothing else."""
    (name, *_), reader = PLANTED[fault]
    r = run(out, fault, f"{fault}=1")
    assert r.status == -signal.SIGABRT, r
    lines = harness.lines(r.err)
    assert lines[0].startswith("stile: stack ownership is violated: "), r
    assert lines[0].endswith("is not in the table of those" if fault == "owner-executes"
                             else "nobody holds the stack's lock"), lines[0]
    owner = re.fullmatch(r"stile:   owner: thread (\d+), running; the stack's lock is free; its stack is its own",
                         lines[1])
    assert owner, lines[1]
    who = re.fullmatch(rf"stile:   reader: thread (\d+), {reader}:", lines[2])
    assert who and who[1] == owner[1], lines[2]
    frames = [FRAME.fullmatch(line) for line in lines[3:]]
    assert frames and all(frames), lines[3:]
    offsets = [f[2] for f in frames if f[1] == harness.program(name)]
    if name == "depth" and fault != "owner-remove":  # where it works; it ends elsewhere
        assert {"go_down", "spin_at_depth"} & functions(harness.program(name), offsets), lines
    assert any(f[1] for f in frames), lines


def test_violation_of_a_wait_is_found(tmp_path):
    """A thread that walks after it has given its stack away: what it left is named, too."""
    env = {"LD_PRELOAD": torture.FAULTY, "PROFILE_COLLECTOR": harness.STILE, "PROFILE_BLOCK": tmp_path / "block.pb.gz",
           "STILE_FAULTS": "owner-wait=1", "STILE_FAULTS_REPORT": tmp_path / "faults"}
    command_line = [harness.program("waiting"), 3, "sleep_nano"]
    r = harness.run(command_line, env=env, timeout=60)
    assert r.status == -signal.SIGABRT, r
    lines = harness.lines(r.err)
    assert lines[0] == "stile: stack ownership is violated: the thread has given its stack away already", r
    assert re.match(r"stile:   owner: thread \d+, waiting", lines[1]), lines
    assert any(re.fullmatch(r"stile:   reader: thread \d+, a wait's walk:", line) for line in lines), lines
    assert any(FRAME.fullmatch(line) for line in lines), lines
    unchecked = harness.run(command_line, env=env, timeout=60, unchecked=True)
    assert unchecked.status == 0 and unchecked.err == b"", unchecked
    assert torture.report(tmp_path / "faults")[0]["owner-wait"] > 0


@planted
def test_nothing_is_found_where_nothing_is_wrong(out, fault):
    """The same program, checked, ends as it does without a profile."""
    r = run(out, fault, "")
    plain = harness.run(command(fault), timeout=60)
    assert r.status == 0 and r.err == b"", r
    assert r.same == plain.same, (r, plain)
    harness.wait_for_file(out)


@planted
def test_violation_without_the_check(out, fault):
    """It happens, and nobody is harmed."""
    r = run(out, fault, f"{fault}=1", unchecked=True)
    assert r.status == 0 and r.err == b"", r
    own, _ = torture.report(out.parent / "faults")
    assert own[fault] > 0, own
    harness.wait_for_file(out)


def test_every_test_is_checked(out):
    """What is started has it, with a profile or without one; and nobody switches it off without saying so."""
    for profile in (None, out):
        r = harness.run(["env"], profile=profile)
        assert f"PROFILE_DEBUG={harness.CHECKS}" in harness.lines(r.out)
    assert harness.debug("walktime=1") == f"{harness.CHECKS},walktime=1"
    with pytest.raises(AssertionError, match="joins what is checked"):
        harness.run(["true"], profile=out, env={"PROFILE_DEBUG": "walktime=1"})
    r = harness.run(["env"], profile=out, unchecked=True)
    assert "PROFILE_DEBUG" not in r.out.decode()
