"""One profile in several files: a piece each interval, or from one signal of the user's to the next."""

import json
import os
import re
import signal

import pytest

import harness
import pprof

USR2 = int(signal.SIGUSR2)
PERIOD = 10**9 // harness.TICK_HZ


def pieces(out, *part):
    """The pieces of a process, all of them valid and numbered from 1 without a gap."""
    stem = ".".join([out.name.removesuffix(".pb.gz"), *map(str, part)])
    found = sorted((int(m.group(1)), p) for p in out.parent.iterdir()
                   if (m := re.fullmatch(re.escape(stem) + r"\.(\d+)\.pb\.gz", p.name)))
    assert [n for n, _ in found] == list(range(1, len(found) + 1)), found
    return [pprof.valid(p, timeout=0) for _, p in found]


def tiles(profiles):
    """Whether each begins where the one before it ended."""
    return all(a.pb.time_nanos + a.pb.duration_nanos == b.pb.time_nanos for a, b in zip(profiles, profiles[1:]))


def collector_gone():
    """Whatever the tree still had to write is there."""
    return harness.wait_until(lambda: not harness.collectors(os.environ[harness.MARK]), 20)


def total(profiles, function=None):
    return sum(p.cum()[function] if function else p.ns for p in profiles)


def toggler(out, *steps, env=None, **options):
    r = harness.run([harness.program("toggler"), str(USR2), *steps], profile=out, hz=harness.TICK_HZ,
                    env={"PROFILE_TOGGLE": "SIGUSR2", **(env or {})}, timeout=120, **options)
    assert r.status == 0, r
    return json.loads(r.out), r


def about(ns, threads=1):
    """What the clock says, up to a period each thread and what is lost between two readings of it."""
    return pytest.approx(ns, rel=0.03, abs=2 * PERIOD * threads)


# --- An interval


@pytest.mark.parametrize("interval", ["200ms", "1", "1s"])
def test_the_sum_is_that_of_one_file(out, interval):
    r = harness.run([harness.program("split"), "2", "4000"], profile=out, hz=harness.TICK_HZ,
                    env={"PROFILE_INTERVAL": interval}, timeout=120)
    told = json.loads(r.out)
    assert r.err == b"" and not out.exists()
    found = pieces(out)
    assert total(found) == pytest.approx(told["rusage"], rel=0.02)
    assert all(total(found, function) > 0 for function in ("spin_a", "spin_b", "spin_c"))
    assert tiles(found)
    seconds = (found[-1].pb.time_nanos + found[-1].pb.duration_nanos - found[0].pb.time_nanos) / 1e9
    assert seconds <= r.seconds
    # A cut comes at the first look after a multiple of the interval, so no interval has two.
    each = 0.2 if interval == "200ms" else 1
    begins = [int((p.pb.time_nanos - found[0].pb.time_nanos) / 1e9 / each) for p in found]
    assert begins == sorted(set(begins)), begins
    assert seconds / each / 2 < len(found) <= seconds / each + 1


def test_idle_intervals_are_files_too(out):
    """A file each interval, empty if nothing ran: their reader need not guess."""
    r = harness.run(["sleep", "1.5"], profile=out, env={"PROFILE_INTERVAL": "300ms"})
    assert (r.status, r.err) == (0, b"")
    found = pieces(out)
    assert len(found) >= 2 and tiles(found)
    assert any(not p.samples for p in found[1:])


def test_interval_that_never_comes(out):
    r = harness.run([harness.program("ending"), "300", "exit"], profile=out, env={"PROFILE_INTERVAL": "30m"})
    assert r.err == b""
    assert len(pieces(out)) == 1 and pieces(out)[0].cum()["work_before_end"] > 200e6


def test_interval_killed(out):
    """What was running when it was killed is the last piece."""
    with harness.Program([harness.program("split"), "1", "60000"], profile=out,
                         env={"PROFILE_INTERVAL": "200ms"}) as app:
        harness.wait_for_file(out.with_name("out.3.pb.gz"), 60)
        n = len(list(out.parent.glob("*.pb.gz")))
        app.signal(signal.SIGKILL)
        app.wait(20)
    harness.wait_for_file(out.with_name(f"out.{n + 1}.pb.gz"))
    assert collector_gone()
    assert tiles(pieces(out))


def test_children_have_pieces_of_their_own(out):
    r = harness.run([harness.program("toggler"), "0", "on=200", "fork", "on=700"], profile=out,
                    env={"PROFILE_INTERVAL": "200ms"})
    told = json.loads(r.out)
    assert r.err == b""
    assert collector_gone()
    children = pieces(out, told["pid"])
    assert total(children, "work_on") == pytest.approx(700e6, rel=0.1)
    assert total(pieces(out), "work_on") == pytest.approx(200e6, rel=0.1, abs=21e6)
    assert sum(len(pieces(out, *p)) for p in [(), (told["pid"],)]) == len(list(out.parent.iterdir()))


def test_images_go_on_counting(out):
    """The image before the exec keeps its files."""
    r = harness.run([harness.program("toggler"), "0", "on=500", "exec", "off=500"], profile=out,
                    env={"PROFILE_INTERVAL": "200ms"})
    assert (r.status, r.err) == (0, b"") and collector_gone()
    found = pieces(out)
    assert len(found) == len(list(out.parent.iterdir()))
    assert total(found, "work_on") == pytest.approx(500e6, rel=0.1)
    assert total(found, "work_off") == pytest.approx(500e6, rel=0.1)
    assert not any(p.cum()["work_on"] and p.cum()["work_off"] for p in found)


@pytest.mark.parametrize("interval", ["", "0", "99ms", "-5", "5 s", "s", "1d", "1.5s", "721h", "2592001", "1e3",
                                      "99999999999999999999", "18446744073709551616ms", "0x10"])
def test_bad_intervals(out, interval):
    r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"PROFILE_INTERVAL": interval})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert f"PROFILE_INTERVAL={interval} " in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


def test_flush_is_part_of_its_piece(out):
    """It writes what the present piece has so far, under the piece's name."""
    r = harness.run([harness.program("api"), "work1", "flush", "work2"], profile=out, env={"PROFILE_INTERVAL": "1h"})
    assert r.same == (0, b"flush: 0\n", b"")
    piece, = pieces(out)
    assert piece.cum()["work_one"] == pytest.approx(400e6, rel=0.1)
    assert piece.cum()["work_two"] == pytest.approx(400e6, rel=0.1)


def test_stop_waits_for_all_pieces(out):
    r = harness.run([harness.program("api"), "work1", "work2", "stop", "work1"], profile=out,
                    env={"PROFILE_INTERVAL": "100ms"})
    assert r.same == (0, b"stop: 0\n", b"")
    found = pieces(out)
    assert len(found) >= 2 and tiles(found)
    assert total(found) == pytest.approx(800e6, rel=0.1)


# --- A toggle


def test_flush_and_stop_while_off(out):
    """There is nothing to write, and that is no error."""
    r = harness.run([harness.program("api"), "work1", "flush", "work2", "stop", "stop"], profile=out,
                    env={"PROFILE_TOGGLE": "SIGUSR2"})
    assert r.same == (0, b"flush: 0\nstop: 0\nstop: ESRCH\n", b"")
    assert list(out.parent.iterdir()) == []


def test_only_what_was_on(out):
    told, r = toggler(out, "off=300", "t", "on=400", "t", "off=300", "t", "on=300", "t", "off=200")
    assert r.err == b"" and not out.exists()
    first, second = pieces(out)
    assert first.cum()["work_off"] == second.cum()["work_off"] == 0
    assert first.cum()["work_on"] == about(400e6) and first.ns == about(400e6)
    assert second.cum()["work_on"] == about(300e6) and second.ns == about(300e6)
    assert told["on"] == pytest.approx(700e6, rel=0.01)
    assert any(c.startswith("late: 0 ticks") for c in second.comments)  # the clock did not run
    assert first.pb.time_nanos + first.pb.duration_nanos <= second.pb.time_nanos


def test_on_at_the_end(out):
    _, r = toggler(out, "off=100", "t", "on=300")
    assert r.err == b""
    last, = pieces(out)
    assert last.cum()["work_on"] == about(300e6) and last.cum()["work_off"] == 0


def test_never_on(out):
    _, r = toggler(out, "off=200")
    assert r.err == b"" and list(out.parent.iterdir()) == []


def test_a_piece_without_work(out):
    _, r = toggler(out, "t", "t", "off=100")
    assert r.err == b""
    piece, = pieces(out)
    assert piece.ns == 0


def test_without_a_pause(out):
    """A start right after a stop is a piece of its own, and no tick crosses over."""
    _, r = toggler(out, "t", "on=200", "t", "t", "off=200", "t", "t", "on=200", "t")
    assert r.err == b""
    found = pieces(out)
    assert [(p.cum()["work_on"] > 0, p.cum()["work_off"] > 0) for p in found] == [(1, 0), (0, 1), (1, 0)]
    assert [p.ns for p in found] == [about(200e6)] * 3


def test_all_threads_at_once(out):
    """Threads that call nothing are started and stopped from another."""
    told, r = toggler(out, "spin=3", "sleep=200", "t", "sleep=600", "t", "sleep=200", "join", "off=100", "t", "off=100")
    assert r.err == b""
    first, second = pieces(out)
    assert first.cum()["work_off"] == 0 and second.cum()["work_thread"] == 0
    tids = {s.labels["tid"] for s in first.stacks("work_thread")}
    assert len(tids) == 3, tids
    assert 0 < first.cum()["work_thread"] < told["threads"]
    assert first.ns <= first.pb.duration_nanos * 3 * 1.05 + 6 * PERIOD  # no more than what three threads can


def test_threads_born_while_off(out):
    told, r = toggler(out, "spin=2", "t", "sleep=400", "t", "join", "spin=2", "sleep=200", "t", "sleep=400", "t", "join")
    assert r.err == b""
    first, second = pieces(out)
    assert len(first.by_label("tid")) >= 2 and len(second.by_label("tid")) >= 2
    assert first.ns > 0 and second.ns > 0 and first.ns + second.ns < told["threads"] + 8 * PERIOD
    assert not {s.labels["tid"] for s in first.stacks("work_thread")} & {
        s.labels["tid"] for s in second.stacks("work_thread")}


def test_two_hundred_in_a_row(out):
    """They leave valid files, however many, and the toggle still works after them."""
    _, r = toggler(out, "many=200", "off=300", "t", "on=300", "t", "off=200")
    assert r.err == b""
    found = pieces(out)
    assert total(found, "work_off") <= 2 * PERIOD
    assert found[-1].cum()["work_on"] == about(300e6)


def test_two_hundred_from_outside(out):
    """And end in the state that they count up to: each that was delivered is one."""
    with harness.Program([harness.program("toggler"), str(USR2), "spin=2", "sleep=1500", "join"], profile=out,
                         env={"PROFILE_TOGGLE": "USR2"}) as app:
        harness.wait_until(lambda: harness.collectors(os.environ[harness.MARK]), 20)
        for _ in range(200):
            app.signal(signal.SIGUSR2)
        r = app.wait(60)
    assert (r.status, r.err) == (0, b"")
    assert pieces(out)


def test_while_threads_come_and_go(out):
    steps = ["t", "churn=150"] * 7 + ["t", "off=200"]
    told, r = toggler(out, *steps)
    assert r.err == b""
    found = pieces(out)
    assert len(found) == 4
    assert total(found, "work_off") == 0
    # Four of the seven parts were on: threads that began in them were sampled from their first moment. They are too
    # short for the kernel's ticks, so most of their time is booked where they end.
    short = sum(ns for p in found for tid, ns in p.by_label("tid").items() if tid != told["pid"])
    assert 0.2 * told["threads"] < short < 2 * told["threads"]


def test_children_toggle_themselves(out):
    """A child begins with its clocks off, as its parent did."""
    told, r = toggler(out, "t", "on=200", "fork", "off=200", "t", "on=300", "t", "off=100")
    assert r.err == b"" and collector_gone()
    child, = pieces(out, told["pid"])
    assert child.cum()["work_on"] == about(300e6) and child.cum()["work_off"] == 0
    parent, = pieces(out)
    assert parent.cum()["work_on"] == about(200e6)


def test_images_toggle_themselves(out):
    _, r = toggler(out, "t", "on=200", "t", "exec", "off=200", "t", "on=300", "t")
    assert r.err == b"" and collector_gone()
    found = pieces(out)
    assert [p.cum()["work_on"] for p in found] == [about(200e6), about(300e6)]
    assert total(found, "work_off") == 0


def test_interval_within_a_piece(out):
    """Cuts by the clock only while it is on."""
    _, r = toggler(out, "off=300", "t", "on=900", "t", "off=300", env={"PROFILE_INTERVAL": "200ms"})
    assert r.err == b""
    found = pieces(out)
    assert len(found) >= 2 and tiles(found)
    assert total(found, "work_on") == about(900e6) and total(found, "work_off") == 0


@pytest.mark.parametrize("before, words", [((), "stays off"), (("t", "on=200"), "stays on")])
def test_program_takes_the_toggle(out, before, words):
    told, r = toggler(out, *before, "handle", "t", "on=200")
    assert told["handled"] == 1
    line = harness.one_line(r.err)
    assert "SIGUSR2" in line and "PROFILE_TOGGLE" in line and words in line
    found = pieces(out)
    assert total(found) == (about(400e6) if before else 0)
    assert all(any("SIGUSR2" in c for c in p.comments) for p in found)


def test_ignored_toggle_is_shown_as_such(out):
    """The program sees what it set; ours works on."""
    script = ("import os, signal, time\n"
              "assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL\n"
              "signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n"
              "os.kill(os.getpid(), signal.SIGUSR2)\n"
              "end = time.process_time() + 0.3\n"
              "while time.process_time() < end: pass\n"
              "print(signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN)\n")
    r = harness.run([harness.PYTHON, "-c", script], profile=out, env={"PROFILE_TOGGLE": "SIGUSR2"})
    assert r.same == (0, b"True\n", b"")
    assert total(pieces(out)) == pytest.approx(300e6, rel=0.1)


@pytest.mark.parametrize("name", ["", "SIGUSR3", "0", "-10", "SIGKILL", "SIGSEGV", "SIGCHLD", "32", "65", "SIGPROF"])
def test_bad_toggles(out, name):
    r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"PROFILE_TOGGLE": name})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert "PROFILE_TOGGLE" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


# --- stile record


def test_record_interval(out):
    r = harness.run([harness.STILE, "record", "-o", out, "--interval", "300ms", "--", harness.program("split"), "1",
                     "1500"], timeout=60)
    found = pieces(out)
    assert r.status == 0 and total(found) == pytest.approx(1500e6, rel=0.03)
    assert f"wrote {len(found)} files".encode() in r.err and b"out.1.pb.gz" in r.err
    seconds = float(re.search(rb"([\d.]+) s of CPU time", r.err).group(1))
    assert seconds == pytest.approx(total(found) / 1e9, abs=0.006)


def test_record_toggle(out):
    argv = [harness.STILE, "record", "-o", out, "--toggle=SIGUSR2", "--", harness.program("toggler"), str(USR2)]
    r = harness.run([*argv, "off=200", "t", "on=300", "t"], timeout=60)
    piece, = pieces(out)
    assert r.status == 0 and piece.cum()["work_on"] == pytest.approx(300e6, rel=0.1)
    assert b"wrote 1 file," in r.err
    out.with_name("out.1.pb.gz").unlink()
    r = harness.run([*argv, "off=200"], timeout=60)
    assert r.status == 0 and b"no file" in r.err and list(out.parent.iterdir()) == []


@pytest.mark.parametrize("option", ["--interval=1d", "--toggle=SIGKILL", "--signal=SIGSEGV", "--toggle=SIGPROF",
                                    "--signal=0", "--toggle=nonsense"])
def test_record_refuses(out, option):
    r = harness.run([harness.STILE, "record", "-o", out, option, "--", "true"])
    assert r.status == 2
    harness.one_line(r.err)
