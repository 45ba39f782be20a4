"""The blocking profile: where threads wait, for what, and for how long.

The programs measure their own waits, so that a machine under load changes both sides alike.
"""

import re
import signal
import subprocess
import time
from collections import namedtuple

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

REASONS = {
    "lock_mutex": "mutex", "lock_mutex_timed": "mutex",
    "lock_read": "rwlock (read)", "lock_write": "rwlock (write)",
    "consume": "condition variable", "consume_timed": "condition variable",
    "wait_for_sem": "semaphore", "wait_at_barrier": "barrier", "join_it": "join",
    "sleep_nano": "sleep", "sleep_clock": "sleep", "sleep_micro": "sleep",
    "drink": "read", "poll_pipe": "poll", "select_pipe": "select", "epoll_pipe": "epoll", "spill": "write",
    "receive": "recv", "take_connection": "accept", "wait_for_child": "child",
}
# The function that the program called, which is the leaf.
LEAVES = {
    "lock_mutex": "pthread_mutex_lock", "lock_mutex_timed": "pthread_mutex_timedlock",
    "lock_read": "pthread_rwlock_rdlock", "lock_write": "pthread_rwlock_wrlock",
    "consume": "pthread_cond_wait", "consume_timed": "pthread_cond_timedwait",
    "wait_for_sem": "sem_wait", "wait_at_barrier": "pthread_barrier_wait", "join_it": "pthread_join",
    "sleep_nano": "nanosleep", "sleep_clock": "clock_nanosleep", "sleep_micro": "usleep",
    "drink": "read", "poll_pipe": "poll", "select_pipe": "select", "epoll_pipe": "epoll_wait", "spill": "write",
    "receive": "recv", "take_connection": "accept", "wait_for_child": "waitpid",
}
TOLERANCE = 0.05
ROUNDS = 6
ALL = {"PROFILE_BLOCK_RATE": "1"}

Told = namedtuple("Told", "count ns more", defaults=[0])


def block_environment(path, debug=None, **env):
    """What a user sets for a blocking profile alone."""
    found = {"PROFILE_BLOCK": str(path), "LD_PRELOAD": str(harness.LIBRARY), **env}
    if debug is not None:
        found["PROFILE_DEBUG"] = harness.debug(debug)
    return found


def told(out):
    """What a program said of its own waits: {function: (how many, nanoseconds, and what else may have been told)}."""
    words = [line.split() for line in harness.lines(out)]
    return {w[0]: Told(*map(int, w[1:])) for w in words}


def waits(p, function, reason=None):
    """What the profile has below a function, by its label."""
    found = [s for s in p.stacks(function) if "reason" in s.labels and reason in (None, s.labels["reason"])]
    return Told(sum(s.count for s in found), sum(s.ns for s in found))


def blocking(path, timeout=harness.FILE_WAIT):
    """Waits for a blocking profile and asserts that it keeps the rules of the format."""
    return pprof.valid(path, timeout, sample_types=[("contentions", "count"), ("delay", "nanoseconds")])


def comment(p, start):
    found = [c for c in p.comments if c.startswith(start)]
    assert len(found) == 1, p.comments
    return found[0]


@pytest.fixture(name="block")
def block_path(tmp_path):
    return tmp_path / "block.pb.gz"


def run_block(block, *argv, debug=None, env=None, **options):
    result = harness.run(argv, env={**block_environment(block, debug), **(env or {})}, **options)
    assert result.status == 0, result
    assert result.err == b"", result
    return result


def check_waits(p, out):
    for function, own in told(out).items():
        got = waits(p, function, REASONS[function])
        assert abs(got.ns - own.ns) <= TOLERANCE * own.ns + own.more, (function, own, got)
        assert own.count <= got.count <= 2 * ROUNDS, (function, own, got)


@pytest.mark.parametrize("how", ["all", "usual", "generations", "with-cpu"])
def test_known_waits(block, tmp_path, how):
    env = {"all": ALL, "usual": {}, "generations": {}, "with-cpu": {}}[how]
    debug = "traceadvanceperiod=0" if how == "generations" else None
    options = {"profile": tmp_path / "cpu.pb.gz", "hz": 1000} if how == "with-cpu" else {}
    result = run_block(block, harness.program("waiting"), ROUNDS, debug=debug, env=env, **options)
    p = blocking(block)
    assert set(told(result.out)) == set(REASONS)
    check_waits(p, result.out)
    for function, leaf in LEAVES.items():
        for s in p.stacks(function):
            if s.labels.get("reason") == REASONS[function]:
                assert s.frames[0].name == leaf, (function, s.frames)
    assert not [s for s in p.samples if pprof.reason(s) not in (None, "[waiting elsewhere]")], p.comments
    if how == "with-cpu":
        pprof.valid(tmp_path / "cpu.pb.gz")
    else:
        assert not list(tmp_path.glob("cpu*"))


def test_output_is_the_programs_own(block):
    """Each wait ends as it does without us."""
    plain = harness.run([harness.program("waits")])
    result = harness.run([harness.program("waits")], env=block_environment(block, **ALL))
    assert (result.status, re.sub(rb"\d+", b"N", result.out), result.err) == (
        plain.status, re.sub(rb"\d+", b"N", plain.out), plain.err)


def test_pprof_reads_it(block):
    result = run_block(block, harness.program("waiting"), ROUNDS, "consume", "drink", "lock_mutex")
    go = harness.tool("go")
    top = subprocess.run([go, "tool", "pprof", "-top", "-cum", "-nodecount=1000", "-unit=ns", str(block)],
                         capture_output=True, text=True, check=True, env=harness.clean_environment()).stdout
    assert "Type: delay" in top, top
    own = told(result.out)
    for function in ("consume", "drink", "lock_mutex"):
        ns = float(re.search(rf"(\d+)ns +\S+ +{function}( \(inline\))?$", top, re.M)[1])
        assert abs(ns - own[function].ns) <= TOLERANCE * own[function].ns + own[function].more, top
    tags = subprocess.run([go, "tool", "pprof", "-tags", "-unit=ns", str(block)], capture_output=True, text=True,
                          check=True, env=harness.clean_environment()).stdout
    for reason in ("condition variable", "mutex", "read", "wakes"):
        assert reason in tags, tags
    count = subprocess.run([go, "tool", "pprof", "-sample_index=contentions", "-traces", str(block)], text=True,
                           capture_output=True, check=True, env=harness.clean_environment()).stdout
    assert "pthread_cond_wait" in count


def test_wakers(block):
    """A wake-up has the stack of who did it, at his own place, and no time."""
    run_block(block, harness.program("waiting"), ROUNDS, "consume", "wait_for_sem", "wait_at_barrier", env=ALL)
    p = blocking(block)
    wakes = [s for s in p.samples if "wakes" in s.labels]
    assert wakes and all(s.ns == 0 for s in wakes)
    by_function = {}
    for s in wakes:
        names = {f.name for f in s.frames}
        assert not names & {"consume", "wait_for_sem"}, s
        for name in names & {"produce", "post", "arrive", "meet"}:
            by_function.setdefault((name, s.labels["wakes"]), 0)
            by_function[name, s.labels["wakes"]] += s.count
    # The other may not be waiting yet, or may have been let through, when the machine is slow.
    assert 1 <= by_function.get(("produce", "condition variable"), 0) <= ROUNDS, by_function
    assert 1 <= by_function.get(("post", "semaphore"), 0) <= ROUNDS, by_function
    assert 1 <= by_function.get(("arrive", "barrier"), 0) <= ROUNDS, by_function


@pytest.mark.parametrize("how", ["jump", "deep", "cancel"])
@pytest.mark.parametrize("cpu", [False, True])
def test_left(block, tmp_path, how, cpu):
    """A wait that does not come back is over when its thread goes on, and the next ones are told as ever."""
    options = {"profile": tmp_path / "cpu.pb.gz", "hz": 1000} if cpu else {}
    result = run_block(block, harness.program("left_waits"), how, env=ALL, **options)
    p = blocking(block)
    own = told(result.out)
    left, plain = waits(p, "wait_for_ever", "read"), waits(p, "plain", "sleep")
    assert (left.count, plain.count) == (own["wait_for_ever"].count, own["plain"].count)
    # Without ticks nobody sees that the thread goes on before its next wait; when it was cancelled it worked first.
    most = 1.15 * own["wait_for_ever"].ns + own["wait_for_ever"].more
    assert 0.95 * own["wait_for_ever"].ns <= left.ns <= most, (own, left)
    assert plain.ns >= 0.95 * own["plain"].ns, (own, plain)


@pytest.mark.parametrize("debug", [None, "traceadvanceperiod=0"])
def test_left_at_any_place(block, debug):
    """A handler that jumps out of a hook leaves nothing behind that the profile's end would wait for, and keep memory for."""
    result = run_block(block, harness.program("waits_jumped"), env=ALL, debug=debug)
    own = told(result.out)["stop"]
    blocking(block)
    assert own.count > 1000 and own.ns < 0.9e9, own


@pytest.mark.parametrize("how", ["vfork", "clone"])
def test_borrowed_thread(block, how):
    """Who runs in another thread's memory of itself is not that thread: the check of ownership would end it."""
    run_block(block, harness.program("waits_borrowed"), how, env=ALL)
    blocking(block)


def test_flush_is_no_wait(block):
    """What the library itself calls while its caller waits for the collector is not told, and does not end that wait."""
    result = run_block(block, harness.program("api"), "flush", "work1", "flush", "stop", env=ALL)
    assert harness.lines(result.out) == ["flush: 0", "flush: 0", "stop: 0"]
    p = blocking(block)
    assert not [s for s in p.samples if s.labels.get("reason") in ("connect", "collector")], p.samples


@pytest.mark.parametrize("recorded", [True, False])
def test_another_wrapper(block, recorded):
    """A library that wraps libc's condition variables, as sanitizers do, is still called: its functions have no version."""
    env = block_environment(block) if recorded else {"LD_PRELOAD": str(harness.LIBRARY)}
    result = harness.run([harness.program("wrapped")], env=env)
    assert (result.status, result.out) == (0, b"8\n"), result


def test_handler_waits_inside(block):
    """A wait in a handler, inside a wait, is the outer one's time, once."""
    result = run_block(block, harness.program("left_waits"), "inside", env=ALL)
    p = blocking(block)
    own = told(result.out)["inside"]
    got = waits(p, "inside")
    assert abs(got.ns - own.ns) <= 2 * TOLERANCE * own.ns and got.count >= own.count, (own, got)
    # Before there are rules for a handler's frame its wait ends the outer one.
    assert waits(p, "waits_too").ns <= own.ns / 2


def test_waiting_elsewhere(block):
    result = run_block(block, harness.program("unseen_waits"), env=ALL)
    p = blocking(block)
    own = told(result.out)
    for thread in ("reads", "waits"):
        found = [s for s in p.samples if s.frames[-1].name == "[waiting elsewhere]" and s.labels["thread"] == thread]
        ns = sum(s.ns for s in found)
        assert found and all(s.labels["reason"] == "elsewhere" for s in found)
        assert abs(ns - own[thread].ns) <= TOLERANCE * own[thread].ns + own[thread].more + 5e6, (thread, own, ns)
    assert not [s for s in p.samples if s.frames[-1].name == "[waiting elsewhere]" and s.labels["thread"] == "feeds"
                and s.ns > 20e6], "its waits are seen"


def test_a_wait_without_end(block):
    """What a thread waits in when it is killed is there, up to that moment."""
    env = block_environment(block)
    with harness.Program([harness.program("unseen_waits"), "forever"], env=env) as running:
        running.wait_output("reads")
        start = time.monotonic()
        time.sleep(1)
        running.signal(signal.SIGKILL)
        running.wait()
        took = time.monotonic() - start
    p = blocking(block)
    got = waits(p, "for_ever", "read")
    assert got.count == 1 and 0.8e9 <= got.ns <= (took + 0.5) * 1e9, (got, took)


@pytest.mark.parametrize("offset", [-100, 1000000])
def test_time_namespace(block, offset):
    """The program's clock is another one than the collector's."""
    command = [harness.tool("unshare"), "--time", f"--monotonic={offset}", "--fork"]
    if harness.run([*command, "true"]).status != 0:
        pytest.skip("no time namespaces here")
    result = harness.run([*command, harness.program("waiting"), ROUNDS, "consume", "drink"],
                         env=block_environment(block, "traceadvanceperiod=0"))
    assert result.status == 0 and result.err == b"", result
    assert harness.wait_until(lambda: len(list(block.parent.iterdir())) >= 2, harness.FILE_WAIT)
    child, = [p for p in map(blocking, block.parent.iterdir()) if "unshare" not in comment(p, "command: ")]
    check_waits(child, result.out)
    assert comment(child, "time namespace: ")
    assert 0 < child.pb.duration_nanos < 100 * 10**9


@pytest.mark.parametrize("rate", [1, 10000, 1000000])
def test_rate_is_unbiased(block, rate):
    """Short waits count as what they are, however few of them are recorded."""
    n = 5000
    result = run_block(block, harness.program("short_waits"), n, env={"PROFILE_BLOCK_RATE": rate})
    own = told(result.out)["asks"]
    p = blocking(block)
    got = waits(p, "asks", "read")
    # Where the collector comes late, what found no room is told without its stack.
    lost = sum(s.ns for s in p.samples if s.frames[-1].name == "[buffer full]" and
               s.labels["tid"] == s.labels["pid"] and not any(f.name == "asks" for f in s.frames))
    # Of waits shorter than the rate as many are recorded as make it up: of relative error 1/sqrt of their number.
    recorded = max(own.ns / rate, 1)
    assert abs(got.ns + lost - own.ns) <= (0.1 + 5 * recorded ** -0.5) * own.ns, (rate, own, got, lost)
    assert lost <= own.ns * 0.9, (own, got, lost)


def test_children(tmp_path):
    block = tmp_path / "block.pb.gz"
    result = harness.run(["/bin/sh", "-c", "sleep 0.2; sleep 0.3; true"], env=block_environment(block))
    assert result.status == 0 and result.err == b""
    assert harness.wait_until(lambda: len(list(tmp_path.iterdir())) >= 3, harness.FILE_WAIT)
    ns = sum(blocking(path).by_label("reason")["sleep"] for path in tmp_path.iterdir())
    assert 0.48e9 <= ns <= 1.5e9, ns


@pytest.mark.parametrize("env, word", [
    ({"PROFILE_BLOCK": "nowhere"}, "PROFILE_BLOCK=nowhere"),
    ({"PROFILE_BLOCK_RATE": "-1"}, "PROFILE_BLOCK_RATE=-1"),
    ({"PROFILE_BLOCK_RATE": "many"}, "PROFILE_BLOCK_RATE=many"),
    ({"PROFILE_BLOCK_RATE": "1000000001"}, "PROFILE_BLOCK_RATE=1000000001"),
    ({"PROFILE_TOGGLE": "SIGUSR2"}, "PROFILE_TOGGLE"),
    ({"PROFILE_DEBUG": harness.debug("traceadvanceperiod=x")}, "traceadvanceperiod=x"),
])
def test_bad_values(block, env, word):
    result = harness.run(["/bin/echo", "hello"], env={**block_environment(block), **env})
    assert result.status == 0 and result.out == b"hello\n"
    assert word in harness.one_line(result.err)
    assert not block.exists()


def test_rate_zero_is_off(block):
    result = run_block(block, "/bin/echo", "hello", env={"PROFILE_BLOCK_RATE": "0"})
    assert result.out == b"hello\n" and not block.exists()


def test_same_file(block):
    result = harness.run(["/bin/echo"], profile=block, env=block_environment(block))
    assert result.status == 0 and "same file" in harness.one_line(result.err)


def test_unwritable(tmp_path):
    result = harness.run(["/bin/echo"], env=block_environment(tmp_path / "no" / "block.pb.gz"))
    assert result.status == 0 and "block.pb.gz" in harness.one_line(result.err)


def test_alone_it_leaves_signals_alone(block):
    """Without a CPU profile there is no clock, no handler and no alternate stack."""
    code = ("import signal, re; print(signal.getsignal(signal.SIGPROF)); s = open('/proc/self/status').read(); "
            "print(int(re.search('SigCgt:\\\\s*(\\\\S+)', s)[1], 16) >> (signal.SIGPROF - 1) & 1)")
    result = run_block(block, harness.PYTHON, "-c", code)
    assert result.out.split() == [b"0", b"0"], result.out
    blocking(block)


def test_record(block):
    result = harness.run([harness.STILE, "record", "-o", block.parent / "cpu.pb.gz", f"--block={block}", "--",
                          harness.program("waiting"), ROUNDS, "consume"])
    assert result.status == 0
    assert any(str(block) in line and "waits" in line for line in harness.lines(result.err)), result.err
    check_waits(blocking(block), result.out)
    pprof.valid(block.parent / "cpu.pb.gz")


def test_top(block):
    run_block(block, harness.program("waiting"), ROUNDS, "consume")
    result = harness.run([harness.STILE, "top", block])
    assert result.status == 0 and result.err == b""
    assert b"pthread_cond_wait" in result.out and b"delay" in result.out, result.out
