"""However a program ends: it ends as it would have, and its profile is a valid file."""

import signal
import stat
import time

import pytest

import harness
import pprof
from endings import WORKED, assert_worked, ending, profiled_command, same_as_plain


def test_short_life(out):
    """Gone before anybody could ask /proc for its name: the profile has it all the same."""
    for _ in range(5):
        assert harness.run([harness.program("ending"), "50", "raise", "9"], profile=out).status == -signal.SIGKILL
        p = pprof.valid(out)
        assert {s.labels["thread"] for s in p.samples} == {"ending"}
        out.unlink()


def test_killed_while_it_sleeps(out):
    with harness.Program(ending("sleep"), profile=out) as app:
        app.wait_output("done")
        app.signal(signal.SIGKILL)
        assert app.wait(20).status == -signal.SIGKILL
    assert_worked(pprof.valid(out))


# --- Programs that run in a shell, a terminal, a container


def test_head_closes_the_pipe(out):
    script = '"$@" | head -n 3; echo "${PIPESTATUS[@]}"'
    plain = harness.run(["/bin/bash", "-c", script, "bash", *ending("chatter")])
    profiled = harness.run(["/bin/bash", "-c", script, "bash", *profiled_command(out, ending("chatter"))])
    assert profiled.same == plain.same
    assert lines_of(profiled)[-1] == "141 0"
    assert_worked(pprof.valid(out))


def lines_of(result):
    return harness.lines(result.out)


# --- Exec


def test_exec_of_another_program(out):
    """The last image owns the name; the earlier one keeps what it had."""
    r = same_as_plain(ending("exec", harness.program("waiter")), out)
    assert r.status == 0
    assert_worked(pprof.valid(out), "work_before_waiting", 200 * 10**6)
    pid = pprof.load(out).samples[0].labels["pid"]
    earlier = harness.child_path(out, pid, 1)
    p = pprof.valid(earlier)
    assert_worked(p)
    assert p.main_file == harness.program("ending")
    assert {s.labels["pid"] for s in p.samples} == {pid}
    assert {f.name for f in out.parent.iterdir()} == {out.name, earlier.name}


def test_exec_of_itself_twice(out):
    again = ending("exec", *ending("exec", *ending("_exit")))
    r = same_as_plain(again, out)
    assert r.status == 7 and r.out == b"working\ndone\n" * 3
    last = pprof.valid(out)
    pid = last.samples[0].labels["pid"]
    paths = {out, harness.child_path(out, pid, 1), harness.child_path(out, pid, 2)}
    for path in paths:
        assert_worked(pprof.valid(path))
    assert set(out.parent.iterdir()) == paths


def test_exec_of_an_unprofiled_program(out):
    """A static program, or one without our library, cannot go on; what there was is kept."""
    r = same_as_plain(ending("exec", "/usr/bin/env", "-u", "LD_PRELOAD", "echo", "hello"), out)
    assert r.status == 0 and r.out.endswith(b"hello\n")
    found = harness.wait_until(lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()[WORKED]], 10)
    assert found, list(out.parent.iterdir())
    assert_worked(pprof.valid(found[0]))


def test_exec_that_fails(out):
    r = same_as_plain(ending("failed-exec"), out)
    assert r.status == 7
    p = pprof.valid(out)
    assert_worked(p)
    assert_worked(p, "work_after_failed_exec", 200 * 10**6)
    assert list(out.parent.iterdir()) == [out]


def test_names_expand(out):
    pattern = out.with_name("%e-%p-%t.pb.gz")
    before = int(time.time())
    with harness.Program(ending("exit"), profile=pattern) as app:
        assert app.wait(20).status == 7
        pid = app.pid
    names = [f.name for f in out.parent.iterdir()]
    allowed = [f"ending-{pid}-{t}.pb.gz" for t in range(before, int(time.time()) + 1)]
    assert len(names) == 1 and names[0] in allowed
    assert_worked(pprof.valid(out.with_name(names[0])))


def test_directory(out):
    with harness.Program(ending("exit"), profile=out.parent) as app:
        assert app.wait(20).status == 7
        assert [f.name for f in out.parent.iterdir()] == [f"ending.{app.pid}.pb.gz"]
        assert_worked(pprof.valid(out.with_name(f"ending.{app.pid}.pb.gz")))


def test_uncompressed(out):
    path = out.with_name("out.pb")
    assert harness.run(ending("exit"), profile=path).status == 7
    assert_worked(pprof.valid(path))


def test_an_older_file_is_replaced_at_once(out):
    """Written aside and renamed: whoever reads meanwhile reads the old one."""
    out.write_bytes(b"old")
    inode = out.stat().st_ino
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        assert out.read_bytes() == b"old"
        app.signal(signal.SIGTERM)
        app.wait(20)
    assert harness.wait_until(lambda: out.stat().st_ino != inode, 10)
    assert_worked(pprof.valid(out))
    assert stat.S_ISREG(out.stat().st_mode) and list(out.parent.iterdir()) == [out]


# --- Ends within ends


@pytest.mark.parametrize("microseconds", [50, 200, 500, 1000, 2000, 3000])
def test_exit_in_a_handler_while_the_file_is_waited_for(out, microseconds):
    """Who interrupts the wait and ends the program must not wait for himself."""
    r = harness.run([harness.program("late_signal"), str(microseconds)], profile=out, timeout=60)
    assert r.status in (0, 3) and r.seconds < 10
    pprof.valid(out)
