"""Every rate, and all CPU time: what the profile says against what the clocks say."""

import json
import re
import resource

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

RATES = [100, 250, 1000, 4000, 10000, 20000]
PERF = "perf cpu-clock"
FREE = 0.005  # what may stand under a bracketed root where no test forces it


def usage(out, *args, hz=100, clock=None, wrap=(), **options):
    """Runs the usage program under a profile: the profile, and what the program says of itself."""
    env = {"PROFILE_CLOCK": clock} if clock else {}
    r = harness.run([*wrap, harness.program("usage"), *args], profile=out, hz=hz, env=env, **options)
    assert r.status == 0 and r.err == b"", r
    return pprof.valid(out), json.loads(r.out)


def clock_of(p):
    return next(c for c in p.comments if c.startswith("clock: "))


def whole(p, told, bracketed=FREE):
    """All CPU time is in the profile, and nearly all of it as a stack."""
    assert p.ns == pytest.approx(told["process"], rel=0.01), (p.ns, told["process"], p.comments)
    assert pprof.bracketed_share([p]) <= bracketed, (pprof.bracketed_ns([p]), p.ns)
    # A few milliseconds to load it, and tens of microseconds for each thread to end.
    assert pprof.exec_and_exit_ns(p) <= 20e6 + 0.002 * p.ns, (pprof.exec_and_exit_ns(p), p.ns)


@pytest.mark.parametrize("clock", ["auto", "timer"])
@pytest.mark.parametrize("hz", RATES)
def test_as_many_as_asked_for(out, hz, clock):
    """On one busy thread and on two: a tick for each period of CPU time, by whichever clock."""
    for threads, ms in (1, 600), (2, 400):
        p, told = usage(out, "threads", threads, ms, hz=hz, clock=clock)
        asked = told["process"] * hz / 1e9
        # Counts are whole: one more or less for each thread, and one for the main thread.
        assert abs(p.count - asked) <= 0.01 * asked + threads + 1, (p.count, asked, clock_of(p))
        assert p.ns == pytest.approx(told["process"], rel=0.01)
        assert f"{hz} Hz requested" in "\n".join(p.comments)
        assert PERF not in clock_of(p) or (clock == "auto" and hz > harness.TICK_HZ), clock_of(p)
        out.unlink()


@pytest.mark.parametrize("hz", [100, 1000, 10000])
class TestSum:
    def test_one_thread(self, out, hz):
        whole(*usage(out, "threads", 1, 1500, hz=hz))

    def test_many_threads_on_few_processors(self, out, hz):
        """And each of them by its own clock."""
        p, told = usage(out, "threads", 64, 200 if hz == 100 else 50, hz=hz)
        whole(p, told)
        by_tid = p.by_label("tid")
        off = sorted(abs(by_tid[t["tid"]] - t["ns"]) - 0.01 * t["ns"] for t in told["threads"])
        # A thread looks at its clock a moment before we do. What a hypervisor takes from it just then counts as its
        # CPU time, and that may be milliseconds, but hits few.
        assert off[len(off) * 9 // 10] <= 500000 and off[-1] <= 20e6, off[-10:]

    def test_short_threads(self, out, hz):
        """Ten thousand of a millisecond. What each takes to end in the kernel, after our last look, is told as that."""
        p, told = usage(out, "pool", 10000, 2, 1000, hz=hz, timeout=600)
        assert p.ns == pytest.approx(told["process"], rel=0.01), (p.ns, told["process"], p.comments)
        assert pprof.bracketed_share([p]) <= FREE, (pprof.bracketed_ns([p]), p.ns)
        assert pprof.exec_and_exit_ns(p) < 0.05 * p.ns

    def test_half_in_the_kernel(self, out, hz):
        """And there, under the function that called it."""
        p, told = usage(out, "calls", 1500, hz=hz)
        whole(p, told)
        in_kernel = [s for s in p.samples if s.frames[0].name == "[kernel]"]
        called = sum(s.ns for s in in_kernel if any(f.name == "call_kernel" for f in s.frames))
        # At 100 Hz these are 75 samples: three standard deviations.
        assert called == pytest.approx(told["kernel"], rel=0.35 if hz == 100 else 0.12), (called, told)
        assert sum(s.ns for s in in_kernel) - called < 0.1 * told["kernel"] + 20e6

    def test_one_long_call(self, out, hz):
        """The signal comes on the way out of the kernel, for all of it: that is not blocked by the program."""
        p, told = usage(out, "long_call", 700, hz=hz)
        whole(p, told)
        called = sum(s.ns for s in p.samples
                     if s.frames[0].name == "[kernel]" and any(f.name == "long_call" for f in s.frames))
        assert called > 0.8 * told["kernel"], (called, told)

    def test_half_in_page_faults(self, out, hz):
        whole(*usage(out, "faults", 1500, hz=hz))

    def test_signals_blocked_by_libc(self, out, hz):
        whole(*usage(out, "blocked", 1500, hz=hz))

    def test_signals_blocked_behind_our_back(self, out, hz):
        """Nothing can come there, but the time is not lost, and not put on whoever unblocks them."""
        p, told = usage(out, "raw_blocked", 1500, hz=hz)
        assert p.ns == pytest.approx(told["process"], rel=0.01), (p.ns, told["process"])
        by_reason = pprof.bracketed_ns([p])
        # What of it was in the kernel is the kernel's word, which goes by its ticks: of a quarter of a second a good part
        # may be off, now and then. Together they are right.
        in_kernel = sum(s.ns for s in p.samples if s.frames[0].name == "[kernel]")
        assert by_reason["[signal blocked]"] > 190e6
        assert by_reason["[signal blocked]"] + in_kernel == pytest.approx(750e6, rel=0.2), (by_reason, in_kernel)
        del by_reason["[signal blocked]"]
        assert sum(by_reason.values()) <= FREE * p.ns, by_reason

    def test_a_sleeper(self, out, hz):
        p, told = usage(out, "sleeper", 300, hz=hz)
        # The last tick of a process that ends is not yet due: a part of a millisecond in so little.
        assert p.ns == pytest.approx(told["process"], rel=0.01, abs=2e6), (p.ns, told["process"])
        assert pprof.bracketed_share([p]) <= FREE, (pprof.bracketed_ns([p]), p.ns)

    def test_descriptors_closed_in_the_middle(self, out, hz):
        """Not one byte of the program's later files is touched, and nothing is missing from then on."""
        whole(*usage(out, "closing", 1000, hz=hz))


# --- The ladder


def limited(number, soft):
    return lambda: resource.setrlimit(number, (soft, soft))


def test_no_descriptor_to_be_had(out):
    """Perf's clock needs one for a moment: without it, weights make up for the tick."""
    p, told = usage(out, "full", 3, 300, hz=10000, preexec_fn=limited(resource.RLIMIT_NOFILE, 64))
    whole(p, told)
    assert clock_of(p).endswith(", thread timer for 3 threads; no perf: Too many open files"), clock_of(p)


@pytest.mark.parametrize("action", ["errno", "kill"])
def test_perf_forbidden(out, action):
    """Under a filter that may end the process for it, it is not tried."""
    p, told = usage(out, "threads", 2, 500, hz=10000, wrap=[harness.program("filtered"), action])
    whole(p, told)
    assert abs(p.count - told["process"] / 1e5) <= 0.01 * told["process"] / 1e5 + 3
    assert clock_of(p) == "clock: thread timer for 3 threads; no perf: not tried under a seccomp filter"


def test_filter_that_comes_later(out):
    """Threads born under it are not the ones to find out."""
    code = ("import ctypes, struct, threading\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "def spin():\n"
            "    for _ in range(20): sum(range(100000))\n"
            "spin()\n"
            "f = [(0x20, 0, 0, 0), (0x15, 0, 1, 298), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000)]\n"
            "prog = b''.join(struct.pack('<HBBI', *i) for i in f)\n"
            "buf = ctypes.create_string_buffer(prog)\n"
            "fprog = struct.pack('<HxxxxxxQ', 4, ctypes.addressof(buf))\n"
            "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, fprog, 0, 0) == 0\n"
            "t = [threading.Thread(target=spin) for _ in range(4)]\n"
            "[x.start() for x in t]; [x.join() for x in t]\n"
            "print('alive')\n")
    r = harness.run([harness.PYTHON, "-c", code], profile=out, hz=2000)
    assert r.same == (0, b"alive\n", b"")
    p = pprof.valid(out)
    assert "no perf: not tried under a seccomp filter" in clock_of(p), clock_of(p)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03)


@pytest.mark.parametrize("hz", [100, 1000])
def test_perf_by_request(out, hz):
    p, told = usage(out, "threads", 2, 500, hz=hz, clock="perf")
    whole(p, told)
    assert "perf cpu-clock and thread timer for 3 threads" in clock_of(p)


@pytest.mark.parametrize("value", ["", "PERF", "wall", "perf,timer"])
def test_clocks_that_are_none(out, value):
    r = harness.run(["echo", "unharmed"], profile=out, env={"PROFILE_CLOCK": value})
    assert r.status == 0 and r.out == b"unharmed\n"
    assert f"PROFILE_CLOCK={value} is not auto, perf or timer" in harness.one_line(r.err)
    assert not out.exists()
