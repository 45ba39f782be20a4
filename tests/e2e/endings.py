"""What tests of programs that end share: a program that works and ends as it is told, what its profile has to have, and a
terminal to end it from."""

import fcntl
import os
import pty
import termios

import harness
import pprof

WORK_NS = 300 * 10**6
WORKED = "work_before_end"


def ending(*way):
    return [harness.program("ending"), "300", *way]


def assert_worked(p, function=WORKED, ns=WORK_NS):
    """The work is there, give or take the periods at its two ends."""
    assert abs(p.cum()[function] - ns) <= max(0.1 * ns, 3 * p.pb.period), (p.cum()[function], p.cum())


def same_as_plain(argv, out, **options):
    """Runs it without and with a profile, which must make no difference that the program or its user can see."""
    plain = harness.run(argv, **options)
    profiled = harness.run(argv, profile=out, **options)
    assert profiled.same == plain.same
    return profiled


def assert_kept(p, function=WORKED, ns=WORK_NS):
    """Nothing of the work is missing; how much it took beyond that is the machine's affair. What found no room is told."""
    full = pprof.bracketed_ns([p])["[buffer full]"]
    assert p.cum()[function] + full >= ns - max(0.1 * ns, 3 * p.pb.period), (p.cum()[function], full, p.cum())


def profiled_command(out, argv):
    return ["env", *harness.assignments(harness.profile_environment(out)), *argv]


class Terminal:
    """A program that leads a session of its own on a terminal of its own."""

    def __init__(self, argv, **options):
        self.master, slave = pty.openpty()

        def adopt_terminal():
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.app = harness.Program(argv, stdin=slave, stdout=slave, stderr=slave, pass_fds=[slave],
                                   preexec_fn=adopt_terminal, **options)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.said = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.hang_up()
        self.app.__exit__(*exc)

    def hang_up(self):
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def read(self):
        try:
            self.said += os.read(self.master, 65536)
        except OSError:
            pass
        return self.said

    def wait_said(self, text, timeout=30):
        found = harness.wait_until(lambda: text in self.read(), timeout)
        assert found, f"{text!r} is not in {self.said[-2000:]!r}"

    def type(self, keys):
        os.write(self.master, keys)
