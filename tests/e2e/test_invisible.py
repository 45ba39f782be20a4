"""What a program sees of the profiler: nothing if no profile is asked for, and next to nothing if one is."""

import json
import os
import signal

import pytest

import harness
import pprof


def look(**options):
    r = harness.run([harness.program("look")], timeout=60, **options)
    assert r.status == 0, r
    return json.loads(r.out), r


def without(environment, *names):
    return sorted(e for e in environment if e.partition("=")[0] not in names)


PRELOAD = {"LD_PRELOAD": str(harness.LIBRARY)}


@pytest.fixture
def views(out):
    plain, _ = look()
    seen, r = look(profile=out)
    assert r.err == b""
    pprof.valid(out)
    return plain, seen


def test_no_thread_and_no_child(views):
    plain, seen = views
    assert seen["threads"] == plain["threads"] == 1
    assert seen["children"] == plain["children"] == ""


def test_signals_are_as_the_program_set_them(views):
    plain, seen = views
    for key in ("mask", "actions", "altstack"):
        assert seen[key] == plain[key], key


def test_the_kernel_knows_of_one_handler_more(views):
    plain, seen = views
    for key in ("SigIgn", "SigBlk", "SigPnd"):
        assert seen["status"][key] == plain["status"][key], key
    more = int(seen["status"]["SigCgt"], 16) & ~int(plain["status"]["SigCgt"], 16)
    assert more == 1 << (signal.SIGPROF - 1)


def test_descriptors(views):
    """Few, high, not inherited by what the program executes, and not in the way of its own."""
    plain, seen = views
    own = {f["fd"] for f in plain["fds"]}
    more = [f for f in seen["fds"] if f["fd"] not in own]
    assert own <= {f["fd"] for f in seen["fds"]}
    assert len(more) <= 4, more
    assert all(f["cloexec"] for f in more), more
    assert all(f["fd"] >= 100 for f in more), more
    assert seen["next_fd"] == plain["next_fd"]


def test_a_mask_that_was_inherited(out):
    """Blocked signals stay blocked in the program's eyes, ours among them, and its time is sampled all the same."""
    blocked = {signal.SIGPROF, signal.SIGUSR1, signal.SIGTERM}

    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    plain, _ = look(preexec_fn=block)
    seen, _ = look(profile=out, preexec_fn=block)
    assert seen["mask"] == plain["mask"] == sorted(int(s) for s in blocked)
    assert pprof.valid(out).cum()["work_before_looking"] == pytest.approx(200e6, rel=0.2)


def test_an_ignored_signal_that_was_inherited(out):
    """nohup, and a parent that ignores SIGPROF."""
    def ignore():
        for s in (signal.SIGHUP, signal.SIGPROF):
            signal.signal(s, signal.SIG_IGN)

    plain, _ = look(preexec_fn=ignore)
    seen, _ = look(profile=out, preexec_fn=ignore)
    assert seen["actions"] == plain["actions"]
    assert pprof.valid(out).cum()["work_before_looking"] == pytest.approx(200e6, rel=0.2)


def test_closed_standard_descriptors(out):
    """A program started without 0, 1 and 2 gets them for its own files, and no line of ours goes into those."""
    script = 'exec "$@" <&- >&- 2>&-'
    argv = ["/bin/sh", "-c", script, "sh", harness.program("ending"), "200", "exit"]
    r = harness.run(argv, profile=out)
    assert r.same == (7, b"", b"")
    assert pprof.valid(out).ns > 0.1e9


def test_a_lying_rate_is_not_hidden(out):
    """More than the kernel's tick can give: the comments say what was asked for and what it came to."""
    r = harness.run([harness.program("ending"), "300", "exit"], profile=out, hz=2000)
    assert r.status == 7
    p = pprof.valid(out)
    assert any("2000" in c for c in p.comments), p.comments
    assert p.cum()["work_before_end"] == pytest.approx(300e6, rel=0.1)


def test_a_mask_handed_on_to_the_next_program(out):
    """What the program blocked is blocked in the program that it executes, as far as that one can see."""
    code = ("import os, signal, sys\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGUSR1})\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n")
    argv = [harness.PYTHON, "-c", code, harness.program("look")]
    plain = json.loads(harness.run(argv).out)
    seen = json.loads(harness.run(argv, profile=out).out)
    assert seen["mask"] == plain["mask"] == [int(signal.SIGUSR1), int(signal.SIGPROF)]


@pytest.mark.parametrize("what", ["nothing", "block", "ignore", "sysv", "handle", "handle-block"])
def test_what_a_program_and_its_children_see_of_the_signal(out, what):
    """Masks and handlers are as they would be, here and in what is forked, exec'd and spawned. (The children have no
    profile of their own, which would be seen in the output if they had one to complain about.)"""
    argv = [harness.program("signal_view"), what]
    plain, profiled = harness.run(argv), harness.run(argv, profile=out)
    assert profiled.out == plain.out and profiled.status == plain.status == 0
    assert len(plain.out.splitlines()) >= 4
