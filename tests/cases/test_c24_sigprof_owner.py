"""C24: one signal, two owners. The program's handler is the program's, and nobody else's ticks reach it."""

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
