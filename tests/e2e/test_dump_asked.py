"""What the agent does for a dump: threads that wait nowhere are asked, and the program itself may ask."""

import signal
import time

import harness
from test_dump import check_waiting, dump, sections, standing_program  # pylint: disable=unused-import  # noqa: F401


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        words = f.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def runs_on(program):
    """It runs as before: nothing is still stopped."""
    before = cpu_seconds(program.pid)
    return harness.wait_until(lambda: cpu_seconds(program.pid) > before + 0.05, 30) and program.poll() is None


def test_running_thread(standing):
    program = standing("run")
    answered = 0
    for _ in range(5):
        started = time.monotonic()
        result = dump(program.pid)
        assert result.returncode == 0, result
        found = sections(result.stdout.decode())
        check_waiting(found)
        state, lines = found["runs"]
        assert state.startswith("running"), state
        if state.startswith("running, and did not answer"):  # no processor for it in half a second, under load
            continue
        answered += 1
        assert any(" keep_running at " in line for line in lines), lines
        assert time.monotonic() - started < 30
        assert found["unseen"][0].startswith("blocked (S")
        assert runs_on(program)
    assert answered != 0


def test_interrupt(standing):
    program = standing("run")
    state, lines = sections(dump(program.pid, "--interrupt").stdout.decode())["unseen"]
    assert state == "blocked, and interrupted" and any(" stand_unseen at " in line for line in lines), (state, lines)
    assert runs_on(program)


def whole_dump(program):
    err = program.err.decode()
    return err if "stile: end of the dump\n" in err else None


def test_asked_by_signal(standing):
    """PROFILE_DUMP: all stacks go to the program's own error output, and it lives."""
    program = standing("run", PROFILE_DUMP="SIGQUIT")
    program.signal(signal.SIGQUIT)
    err = harness.wait_until(lambda: whole_dump(program), 60)
    assert err, program.err
    found = sections(err[err.index("stile: dump of process "):])
    check_waiting(found)
    assert "standing" in found and "runs" in found and "unseen" in found
    assert runs_on(program)
    program.signal(signal.SIGQUIT)
    assert harness.wait_until(lambda: program.err.count(b"stile: end of the dump\n") == 2, 60)
