"""C38: the collector is missing, is none, never answers, is killed, stopped, slow or out of memory: the program is as it was, ends
within a stated time, and says what became of its profile in one line at most."""

import os
import resource
import signal
import time

import pytest

import harness
import pprof
from endings import ending

# The agent's own bounds (patience.c): a collector that does not move, and one that is still at it.
STALL_S, WAIT_S = 5, 10


def one_line_at_most(r):
    assert len(harness.lines(r.err)) <= 1, r.err
    return harness.one_line(r.err) if r.err else ""


@pytest.mark.parametrize("way", [("exit",), ("raise", "15")], ids=" ".join)
def test_collector_missing(out, way):
    plain = harness.run(ending(*way))
    r = harness.run(ending(*way), profile=out, env={"PROFILE_COLLECTOR": "/nonexistent/stile"})
    assert (r.status, r.out) == (plain.status, plain.out)
    assert "/nonexistent/stile" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("collector", ["/bin/true", "/etc/passwd"])
def test_collector_that_is_none(out, collector):
    r = harness.run(ending("exit"), profile=out, env={"PROFILE_COLLECTOR": collector}, timeout=60)
    assert (r.status, r.out) == (7, b"working\ndone\n")
    harness.one_line(r.err)
    assert r.seconds < 20 and list(out.parent.iterdir()) == []


def test_collector_that_never_answers_or_stands_still(out, tmp_path, mark):
    """Each end is held up for a while and no longer; of the one that stood still the profile comes when it goes on."""
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    other = out.with_name("other.pb.gz")
    with harness.Program([harness.program("split"), "2", "1000"], profile=out) as app:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        try:
            unanswered = harness.run(ending("exit"), profile=other, env={"PROFILE_COLLECTOR": mute}, timeout=60)
            r = app.wait(60)
        finally:
            os.kill(collector.pid, signal.SIGCONT)
    for p in harness.processes():
        if p.argv == ["sleep", "60"] and p.environment.get(harness.MARK) == mark:
            harness.end_process(p)
    assert (unanswered.status, unanswered.out) == (7, b"working\ndone\n")
    assert "has never answered" in harness.one_line(unanswered.err)
    assert r.status == 0 and r.out.startswith(b"{")
    assert "does not answer" in harness.one_line(r.err)
    for one in (unanswered, r):
        assert one.seconds < one.cpu_ns / 1e9 + STALL_S + 10, one
    assert pprof.valid(out).ns > 0.4e9
    assert not other.exists()


def test_collector_killed(out, mark):
    with harness.Program([harness.program("split"), "2", "800"], profile=out) as app:
        harness.end_process(harness.wait_for_collector(mark))
        r = app.wait(60)
    assert r.status == 0 and r.out.startswith(b"{")
    assert r.seconds < 20
    harness.one_line(r.err)
    for f in out.parent.glob("*.pb.gz"):
        pprof.valid(f)


@pytest.mark.measures
def test_collector_stopped_for_a_moment(out, mark):
    """The rings hold what comes meanwhile."""
    with harness.Program([harness.program("split"), "2", "1200"], profile=out) as app:
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(collector.pid, signal.SIGCONT)
        r = app.wait(60)
    assert (r.status, r.err) == (0, b"")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=4 * p.pb.period)


def test_slow_collector(out, mark):
    """It runs a fifth of the time: what finds no room meanwhile is told, and the file is waited for."""
    with harness.Program([harness.program("split"), "2", "1000"], profile=out) as app:
        collector = harness.wait_for_collector(mark)
        try:
            while app.poll() is None and time.monotonic() - app.started < 60:
                os.kill(collector.pid, signal.SIGSTOP)
                time.sleep(0.2)
                os.kill(collector.pid, signal.SIGCONT)
                time.sleep(0.05)
        except ProcessLookupError:
            pass # it has written its file, and is done
        r = app.wait(60)
    assert r.status == 0 and r.out.startswith(b"{") and r.seconds < r.cpu_ns / 1e9 + WAIT_S + 10
    said = one_line_at_most(r)
    assert not said or "still writing" in said
    assert pprof.valid(out).ns >= 0.9e9


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["address space", "data"])
def test_collector_out_of_memory(out, mark, limit):
    """From one moment on it gets none: it writes what it can, or is gone, and that is said."""
    with harness.Program([harness.program("split"), "2", "800"], profile=out) as app:
        resource.prlimit(harness.wait_for_collector(mark).pid, limit, (1 << 20, 1 << 20))
        r = app.wait(60)
    assert r.status == 0 and r.out.startswith(b"{")
    assert r.seconds < r.cpu_ns / 1e9 + WAIT_S + 10
    said = one_line_at_most(r)
    assert harness.wait_until(lambda: not harness.marked(mark), 15), "it does not come to an end"
    files = list(out.parent.iterdir())
    assert said or files == [out], (said, files)
    for f in files:
        assert f == out
        p = pprof.valid(f)
        assert p.ns >= 0.7e9 or any("damaged: the collector has no memory" in c for c in p.comments), p.comments
