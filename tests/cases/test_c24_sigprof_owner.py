"""C24: one signal, two owners. The program's handler is the program's, and nobody else's ticks reach it."""

import json

import pytest

import harness
import pprof

FOREIGN = """
import signal, time
n = 0
def tick(*_):
    global n
    n += 1
signal.signal(signal.SIGPROF, tick)
end = time.process_time() + 0.5
while time.process_time() < end: pass
print('ticks', n)
"""

OWN = FOREIGN.replace("end =", "signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)\nend =", 1).replace(
    "print('ticks', n)", "signal.setitimer(signal.ITIMER_PROF, 0)\n"
    "print('ticks', 0 < n < 90, signal.getsignal(signal.SIGPROF) is tick)")


def test_no_tick_of_ours_reaches_the_program(out):
    plain = harness.run([harness.PYTHON, "-c", FOREIGN])
    r = harness.run([harness.PYTHON, "-c", FOREIGN], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out) == (0, b"ticks 0\n")


@pytest.mark.measures
def test_its_own_ticks_do(out):
    plain = harness.run([harness.PYTHON, "-c", OWN])
    r = harness.run([harness.PYTHON, "-c", OWN], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out) == (0, b"ticks True True\n")


def test_what_is_not_sampled_is_not_hidden(out):
    """The time is in the profile, or one line says that it is not."""
    r = harness.run([harness.PYTHON, "-c", FOREIGN], profile=out)
    assert pprof.valid(out).ns > 0.45e9 or harness.one_line(r.err)


def owner(out, *way, env=None):
    r = harness.run([harness.program("owner"), "500", *way], profile=out, env=env, timeout=120)
    assert r.status == 0, r
    return [json.loads(line) for line in harness.lines(r.out)], r


@pytest.mark.measures
def test_a_signal_that_queues(out, setting):
    """Perf's real-time signals would fill the queue, and the kernel's answer to that is SIGIO, which kills. How many may wait is
    a limit of the user's, to which others of his add: here he is one by himself."""
    if setting.hz <= harness.TICK_HZ:
        pytest.skip("timers do at this rate, and theirs do not queue")
    alone = [harness.tool("unshare"), "--user", "--map-root-user"]
    if harness.run([*alone, "true"]).status != 0:
        pytest.skip("no right to make a user namespace here")
    env = {**harness.profile_environment(out), "PROFILE_SIGNAL": "SIGRTMIN+1"}
    r = harness.run([*alone, harness.tool("prlimit"), "--sigpending=10", "env", *harness.assignments(env),
                     harness.program("usage"), "raw_blocked", "500"])
    assert r.status == 0 and r.err == b"", r
    p = pprof.valid(out)
    assert "no perf: its signals would queue up if they were real-time ones" in "\n".join(p.comments)
    assert p.count == pytest.approx(p.ns / p.pb.period, rel=0.02)


def test_ticks_on_their_way_when_the_program_takes_over(out):
    """Many threads tick; not one tick reaches the program's handler, or its default action."""
    code = ("import hashlib, signal, threading, time\n"
            "seen, block = [], b'x' * (1 << 22)\n"
            "def spin():\n"
            "    for _ in range(12): hashlib.sha256(block).digest()\n"
            "threads = [threading.Thread(target=spin) for _ in range(6)]\n"
            "[t.start() for t in threads]\n"
            "time.sleep(0.05)\n"
            "signal.signal(signal.SIGPROF, lambda *a: seen.append(a))\n"
            "time.sleep(0.05)\n"
            "signal.signal(signal.SIGPROF, signal.SIG_DFL)\n"
            "[t.join() for t in threads]\n"
            "print(len(seen))\n")
    for _ in range(3):
        r = harness.run([harness.PYTHON, "-c", code], profile=out)
        assert (r.status, r.out) == (0, b"0\n"), r
        pprof.valid(out)


def undisturbed(told):
    """None of our signals came to its handler, and its own did. How many is the kernel's affair: this timer goes by the
    whole kernel ticks that find the process running, and on a busy machine that is anything."""
    assert told["strange"] == 0 and told["own"] == 1, told
    assert 1 <= told["ticks"] <= 2 * told["due"] + 2, told


def sampled(path, told):
    p = pprof.valid(path)
    full = pprof.bracketed_ns([p])["[buffer full]"]
    assert p.cum()["work_owner"] == pytest.approx(told["used"], rel=0.05, abs=full + 4 * p.pb.period)


@pytest.mark.measures
@pytest.mark.parametrize("name", ["SIGUSR2", "SIGRTMIN+3", "SIGVTALRM"])
def test_another_signal(out, name):
    """Both work: the program's timer and the profile."""
    (told,), r = owner(out, env={"PROFILE_SIGNAL": name})
    assert r.err == b""
    undisturbed(told)
    sampled(out, told)


@pytest.mark.measures
@pytest.mark.parametrize("way", ["fork", "exec"])
def test_children_use_it_too(out, way):
    (told, child), r = owner(out, way, env={"PROFILE_SIGNAL": "SIGUSR2"})
    assert r.err == b""
    for t, path in ((told, out), (child, harness.child_path(out, child["pid"]))):
        undisturbed(t)
        sampled(path, t)


@pytest.mark.measures
def test_taken_in_mid_run(out):
    """The line and the profile say whose the signal is, and what to set."""
    (told,), r = owner(out)
    line = harness.one_line(r.err)
    assert "SIGPROF" in line and "PROFILE_SIGNAL" in line
    assert any("SIGPROF" in c and "PROFILE_SIGNAL" in c for c in pprof.valid(out).comments)
    undisturbed(told)


def test_chosen_signal_taken_in_mid_run(out):
    r = harness.run([harness.PYTHON, "-c", FOREIGN.replace("SIGPROF", "SIGUSR2")], profile=out,
                    env={"PROFILE_SIGNAL": "SIGUSR2"})
    assert (r.status, r.out) == (0, b"ticks 0\n")
    assert "SIGUSR2" in harness.one_line(r.err)
    assert any("SIGUSR2" in c for c in pprof.valid(out).comments)


def test_what_the_program_sees_of_the_chosen_one(out):
    """Neither our handler nor our mask; and SIGPROF is as the kernel has it."""
    script = ("import signal, time\n"
              "s = [signal.SIGPROF, signal.SIGUSR2]\n"
              "print([signal.getsignal(n) == signal.SIG_DFL for n in s])\n"
              "signal.pthread_sigmask(signal.SIG_BLOCK, s)\n"
              "end = time.process_time() + 0.3\n"
              "while time.process_time() < end: pass\n"
              "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])) == sorted(s))\n")
    r = harness.run([harness.PYTHON, "-c", script], profile=out, env={"PROFILE_SIGNAL": "SIGUSR2"})
    assert r.same == (0, b"[True, True]\nTrue\n", b"")
    assert pprof.valid(out).ns > 0.25e9


@pytest.mark.parametrize("name", ["", "nonsense", "SIGRTMIN+31", "SIGKILL", "SIGSEGV"])
def test_refused_signals(out, name):
    """All that can be refused is in tests/e2e/test_errors.py."""
    r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"PROFILE_SIGNAL": name})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert f"PROFILE_SIGNAL={name}" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


@pytest.mark.measures
def test_record_passes_it_on(out, setting):
    r = harness.run([*setting.record(out, "--signal", "SIGUSR1"), harness.program("owner"), "500"])
    assert r.status == 0
    told, = map(json.loads, harness.lines(r.out))
    undisturbed(told)
    sampled(out, told)
