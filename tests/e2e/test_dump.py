"""`stile dump`: where all threads of a live program are, which then runs on."""

import os
import re
import signal
import subprocess

import pytest

import harness

WAITS = {"in mutex": ("mutex", "stand_in_mutex"), "in cond": ("condition variable", "stand_in_cond"),
         "in pipe": ("read", "stand_in_pipe")}


def dump(pid, *more):
    return subprocess.run([str(harness.STILE), "dump", *more, str(pid)], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=100, check=False, env=harness.clean_environment())


def sections(text):
    """{thread name: (state, its lines)}"""
    found, lines = {}, None
    for line in text.splitlines():
        head = re.match(r'thread \d+ "(.*)" (.*):$', line)
        if head:
            lines = []
            found[head[1]] = (head[2], lines)
        elif line.startswith("  ") and lines is not None:
            lines.append(line)
        else:
            lines = None
    return found


@pytest.fixture(name="standing")
def standing_program(tmp_path):
    def start(*argv, **env):
        program = harness.Program([harness.program("standing"), *argv], profile=tmp_path / "out.pb.gz",
                                  env={"PROFILE_BLOCK": tmp_path / "block.pb.gz", **env})
        programs.append(program)
        program.wait_output("standing")
        return program
    programs = []
    yield start
    for program in programs:
        program.__exit__()


def check_waiting(found):
    for name, (reason, function) in WAITS.items():
        state, lines = found[name]
        assert re.fullmatch(rf"waiting \({reason}\) for \d+\.\d\d\d s", state), state
        assert any(re.search(rf" {function} at .*standing\.c:\d+ \(", line) for line in lines), lines


def test_waiting_threads(standing):
    program = standing()
    for _ in range(3):
        result = dump(program.pid)
        assert result.returncode == 0, result
        text = result.stdout.decode()
        assert text.startswith(f"stile: dump of process {program.pid} (standing): 5 threads\n"), text
        assert text.endswith("stile: end of the dump\n")
        found = sections(text)
        check_waiting(found)
        assert found["standing"][0].startswith("waiting (signal) for ")
        state, lines = found["unseen"]
        assert state.startswith("blocked (S") and "--interrupt" in state, state
        assert "not known" in lines[0]
    assert program.poll() is None
    program.signal(signal.SIGTERM)
    assert program.wait().status == -signal.SIGTERM


def test_beside_running_ones(standing):
    """A thread that runs is no reason for anything to be missing of the others, or to go on for long."""
    program = standing("run")
    result = dump(program.pid)
    assert result.returncode == 0, result
    found = sections(result.stdout.decode())
    check_waiting(found)
    assert found["runs"][0].startswith("running"), found["runs"]
    assert program.poll() is None


def test_many_at_once(standing):
    """Each gets a dump, or is told that there is another."""
    program = standing()
    asking = [subprocess.Popen([str(harness.STILE), "dump", str(program.pid)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=harness.clean_environment()) for _ in range(4)]
    whole = 0
    for a in asking:
        out, err = a.communicate(timeout=100)
        if a.returncode == 0:
            whole += 1
            check_waiting(sections(out.decode()))
        else:
            assert "another dump of it is under way" in harness.one_line(err)
    assert whole >= 1


def test_killed_while_dumping(standing):
    program = standing("run")
    asking = subprocess.Popen([str(harness.STILE), "dump", str(program.pid)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=harness.clean_environment())
    program.signal(signal.SIGKILL)
    out, err = asking.communicate(timeout=100)
    assert asking.returncode in (0, 1)
    assert asking.returncode == 0 and out or harness.one_line(err)


def test_reader_that_goes_away(standing):
    """A pipe whose other end is closed ends the dump, and nothing else."""
    program = standing()
    read, write = os.pipe()
    os.close(read)
    asking = subprocess.Popen([str(harness.STILE), "dump", str(program.pid)], stdout=write,
                              stderr=subprocess.DEVNULL, env=harness.clean_environment())
    os.close(write)
    asking.wait(100)
    assert dump(program.pid).returncode == 0


def test_not_profiled():
    with harness.Program([harness.program("standing")]) as program:
        program.wait_output("standing")
        result = dump(program.pid)
        assert result.returncode == 1 and result.stdout == b""
        assert "is not profiled by Stile" in harness.one_line(result.stderr)


@pytest.mark.parametrize("argv, status, words", [
    (["4194303"], 1, "there is no process 4194303"),
    ([], 2, "no process given"),
    (["0"], 2, "is no process"),
    (["-1"], 2, "is no process"),
    (["12x"], 2, "is no process"),
])
def test_errors(argv, status, words):
    result = subprocess.run([str(harness.STILE), "dump", *argv], capture_output=True, timeout=60, check=False)
    assert result.returncode == status and result.stdout == b""
    assert words in harness.one_line(result.stderr)


@pytest.mark.parametrize("variables", [
    {"PROFILE": "out.pb.gz"}, {"PROFILE_CRASH": "fd:2"}, {"PROFILE_DUMP": "SIGQUIT"},
    {"PROFILE": "out.pb.gz", "PROFILE_DUMP": "SIGQUIT", "PROFILE_HZ": "2000"},
    {"PROFILE": "out.pb.gz", "PROFILE_CRASH": "fd:2", "PROFILE_BLOCK": "block.pb.gz"}], ids="+".join)
def test_nobody_is_disturbed(tmp_path, variables):
    """Calls that any signal breaks off are not, though those who make them run as often as not."""
    with harness.Program([harness.program("undisturbed"), 4], cwd=tmp_path,
                         env={"LD_PRELOAD": harness.LIBRARY, **variables}) as program:
        program.wait_output("ready")
        dumps = 0
        while program.poll() is None:
            dumps += dump(program.pid).returncode == 0
        result = program.wait(60)
    assert result.status == 0 and dumps > 0, result
    assert harness.lines(result.out)[1:] == ["calls: 1, broken off: 0"], result
