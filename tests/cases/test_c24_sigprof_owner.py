"""C24: one signal, two owners. The program's handler is the program's, and nobody else's ticks reach it."""

import json

import resource

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
end = time.process_time() + 1
while time.process_time() < end: pass
print('ticks', n)
"""

OWN = FOREIGN.replace("end =", "signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)\nend =", 1).replace(
    "print('ticks', n)", "signal.setitimer(signal.ITIMER_PROF, 0)\n"
    "print('ticks', 40 < n < 140, signal.getsignal(signal.SIGPROF) is tick)")


def test_no_tick_of_ours_reaches_the_program(out):
    plain = harness.run([harness.PYTHON, "-c", FOREIGN])
    r = harness.run([harness.PYTHON, "-c", FOREIGN], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out) == (0, b"ticks 0\n")


def test_its_own_ticks_do(out):
    plain = harness.run([harness.PYTHON, "-c", OWN])
    r = harness.run([harness.PYTHON, "-c", OWN], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out) == (0, b"ticks True True\n")


def test_what_is_not_sampled_is_not_hidden(out):
    """The time is in the profile, or one line says that it is not."""
    r = harness.run([harness.PYTHON, "-c", FOREIGN], profile=out)
    assert pprof.valid(out).ns > 0.9e9 or harness.one_line(r.err)


def owner(out, *way, env=None):
    r = harness.run([harness.program("owner"), "1000", *way], profile=out, hz=harness.TICK_HZ, env=env, timeout=120)
    assert r.status == 0, r
    return [json.loads(line) for line in harness.lines(r.out)], r


def test_a_signal_that_queues(out):
    """Perf's real-time signals would fill the queue, and the kernel's answer to that is SIGIO, which kills."""
    r = harness.run([harness.program("usage"), "raw_blocked", "1500"], profile=out, hz=20000,
                    env={"PROFILE_SIGNAL": "SIGRTMIN+1"}, preexec_fn=few_signals)
    assert r.status == 0 and r.err == b"", r
    p = pprof.valid(out)
    assert "no perf: its signals would queue up if they were real-time ones" in "\n".join(p.comments)
    assert p.count == pytest.approx(p.ns / 50000, rel=0.02)


def test_ticks_on_their_way_when_the_program_takes_over(out):
    """Many threads tick ten thousand times a second; not one tick reaches the program's handler, or its default action."""
    code = ("import hashlib, signal, threading, time\n"
            "seen, block = [], b'x' * (1 << 22)\n"
            "def spin():\n"
            "    for _ in range(40): hashlib.sha256(block).digest()\n"
            "threads = [threading.Thread(target=spin) for _ in range(6)]\n"
            "[t.start() for t in threads]\n"
            "time.sleep(0.1)\n"
            "signal.signal(signal.SIGPROF, lambda *a: seen.append(a))\n"
            "time.sleep(0.05)\n"
            "signal.signal(signal.SIGPROF, signal.SIG_DFL)\n"
            "[t.join() for t in threads]\n"
            "print(len(seen))\n")
    for _ in range(5):
        r = harness.run([harness.PYTHON, "-c", code], profile=out, hz=10000)
        assert (r.status, r.out) == (0, b"0\n"), r
        pprof.valid(out)


def few_signals():
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (10, 10))


def undisturbed(told):
    """None of our signals came to its handler, and its own did. How many is the kernel's affair: this timer goes by the
    whole kernel ticks that find the process running, and on a busy machine that is anything."""
    assert told["strange"] == 0 and told["own"] == 1, told
    assert 1 <= told["ticks"] <= 2 * told["due"] + 2, told


def sampled(path, told):
    p = pprof.valid(path)
    assert p.cum()["work_owner"] == pytest.approx(told["used"], rel=0.05)
    return p


@pytest.mark.parametrize("name", ["SIGUSR2", "USR1", "12", "SIGRTMIN+3", "SIGVTALRM"])
def test_another_signal(out, name):
    """Both work: the program's timer and the profile."""
    (told,), r = owner(out, env={"PROFILE_SIGNAL": name})
    assert r.err == b""
    undisturbed(told)
    sampled(out, told)


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_children_use_it_too(out, way):
    (told, child), r = owner(out, way, env={"PROFILE_SIGNAL": "SIGUSR2"})
    assert r.err == b""
    for t, path in ((told, out), (child, harness.child_path(out, child["pid"]))):
        undisturbed(t)
        sampled(path, t)


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
              "end = time.process_time() + 0.4\n"
              "while time.process_time() < end: pass\n"
              "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])) == sorted(s))\n")
    r = harness.run([harness.PYTHON, "-c", script], profile=out, env={"PROFILE_SIGNAL": "SIGUSR2"})
    assert r.same == (0, b"[True, True]\nTrue\n", b"")
    assert pprof.valid(out).ns > 0.35e9


@pytest.mark.parametrize("name", ["", "nonsense", "SIGUSR3", "usr1", "0", "-1", "-10", "10x", "65", "1000", "32", "33",
                                  "SIGRTMIN+31", "SIGKILL", "STOP", "SIGSEGV", "BUS", "ILL", "FPE", "TRAP", "ABRT",
                                  "SYS", "CHLD", "CONT", "TSTP", "TTIN", "TTOU", "9", "11"])
def test_refused_signals(out, name):
    r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"PROFILE_SIGNAL": name})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert f"PROFILE_SIGNAL={name}" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


def test_record_passes_it_on(out):
    r = harness.run([harness.STILE, "record", "-o", out, "--signal", "SIGUSR1", "--", harness.program("owner"), "500"])
    assert r.status == 0
    told, = map(json.loads, harness.lines(r.out))
    undisturbed(told)
    sampled(out, told)
