"""C19: however a program ends, by a signal, _exit or abort, its file is there, valid, and has what it did."""

import functools
import signal
import time

import pytest

import harness
import pprof
from endings import WORKED

WORK_MS = 100
ROOM_NS = 30 * 10**6  # a clock's end, and what the kernel books in ticks

RETURNING = [("return",), ("threads-return",), ("threads",), ("exit",), ("_exit",), ("quick_exit",),
             ("raw_exit_group",)]
DYING = [("abort",), ("segv",)] + [("raise", str(int(s))) for s in (
    signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM,
    signal.SIGVTALRM, signal.SIGXCPU, signal.SIGSYS, signal.SIGTRAP)]


def ending(*way):
    return [harness.program("ending"), str(WORK_MS), *way]


@functools.lru_cache(maxsize=None)
def plain(way):
    return harness.run(ending(*way)).same


def assert_worked(p):
    """The work is there; where the buffers were full for a moment, its time is."""
    told, work = sum(pprof.bracketed_ns([p]).values()), p.cum()[WORKED]
    assert 0 < work <= WORK_MS * 10**6 + ROOM_NS + 3 * p.pb.period, p.cum()
    assert work + told >= WORK_MS * 10**6 - ROOM_NS - 3 * p.pb.period, (work, pprof.bracketed_ns([p]))


def test_program_that_ends_itself(out):
    """The root of the tree waits for its file: it is there when the program is gone. Past libc nobody can wait."""
    for way in RETURNING:
        r = harness.run(ending(*way), profile=out)
        assert r.same == plain(way) == (7, b"working\ndone\n", b""), way
        assert out.exists() or way == ("raw_exit_group",), f"{way}: the file was not waited for"
        p = pprof.valid(out)
        assert_worked(p)
        if "threads" in way[0]:
            assert p.cum()["work_in_thread"] + sum(pprof.bracketed_ns([p]).values()) > 0.2 * WORK_MS * 10**6
        out.unlink()


def test_pthread_exit_of_the_main_thread(out):
    assert harness.run(ending("pthread_exit"), profile=out).same == plain(("pthread_exit",)) == (
        0, b"working\ndone\n", b"")
    assert_worked(pprof.valid(out))


def test_program_that_dies(out):
    for way in DYING:
        r = harness.run(ending(*way), profile=out)
        assert r.same == plain(way) and r.status < 0, way
        assert_worked(pprof.valid(out))
        out.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda s: s.name)
def test_program_that_is_killed(out, number):
    """In the midst of its work."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        time.sleep(0.2)
        app.signal(number)
        r = app.wait(20)
    assert r.status == -number and r.err == b""
    p = pprof.valid(out)
    assert_worked(p)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.05, abs=2 * ROOM_NS)
