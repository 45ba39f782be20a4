"""Tests on a machine whose hypervisor may take its processors away.

What a hypervisor takes is in part counted as CPU time of whoever ran, in one piece of up to a second: no tick comes meanwhile,
two clocks that are read one after the other differ by it, and a collector or a thread that a test counts on may not have run
at all. So of a test that fails, the kernel is asked how much was stolen meanwhile (/proc/stat). If that is next to nothing
the failure stands. Otherwise the test is done again, and a line at the end says so, with what failed. If it fails in all
tries it has failed; but for a test with the mark `measures`, which compares clocks: that was no measurement, and is skipped,
with the reason.
"""

import os
import time

import pytest

TRIES = 4  # of what measures
OTHER_TRIES = 6
PAUSE_S = 1  # before the second try, then twice as long each time: what steals comes and goes in seconds
LONGEST_PAUSE_S = 8
QUIET = 0.02  # of the processors' time: of what is stolen a tenth or so comes out as CPU time of whoever ran


def _stolen_s():
    with open("/proc/stat", encoding="ascii") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


class Watch:
    """How much of the processors' time was stolen since it was made."""

    def __init__(self):
        self._began, self._stolen = time.monotonic(), _stolen_s()

    def share(self):
        elapsed = time.monotonic() - self._began
        return (_stolen_s() - self._stolen) / max(elapsed * os.cpu_count(), 1e-3)


class Measurement:
    """What several tests look at, made when the first one asks, and made again after it was disturbed."""

    def __init__(self, make):
        self._make, self._result, self.share = make, None, 0.0

    def __call__(self):
        if self._result is None:
            watch = Watch()
            self._result = self._make()
            self.share = watch.share()
        return self._result

    def forget(self):
        self._result = None


def _entries(directory):
    return set(directory.rglob("*")) if directory is not None else set()


def _remove(entries):
    """What the last try wrote must not stand for what the next one does."""
    for entry in sorted(entries, reverse=True):  # what is in a directory before itself
        if entry.is_dir() and not entry.is_symlink():
            entry.rmdir()
        else:
            entry.unlink(missing_ok=True)


_again = []  # a line for each try that was disturbed


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs the test, again where it was disturbed."""
    measures = pyfuncitem.get_closest_marker("measures") is not None
    # pylint: disable-next=protected-access
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    measurements = [a for a in arguments.values() if isinstance(a, Measurement)]
    directory = pyfuncitem.funcargs.get("tmp_path")
    before = _entries(directory)
    shares, failure = [], ""
    for t in range(TRIES if measures else OTHER_TRIES):
        watch = Watch()
        try:
            pyfuncitem.obj(**arguments)
            return True
        except (AssertionError, pytest.fail.Exception) as e:
            failure = str(e).partition("\n")[0][:200]
            shares.append(max([watch.share(), *(m.share for m in measurements)]))
            if shares[-1] < QUIET or not measures and t == OTHER_TRIES - 1:
                raise
        _again.append(f"{pyfuncitem.nodeid}: {100 * shares[-1]:.1f} % stolen: {failure}")
        for m in measurements:
            m.forget()
        _remove(_entries(directory) - before)
        time.sleep(min(PAUSE_S << t, LONGEST_PAUSE_S))
    said = ", ".join(f"{100 * s:.1f} %" for s in shares)
    pytest.skip(f"no measurement: a hypervisor took {said} of the processors in {TRIES} tries; the last one: {failure}")
    return True


def pytest_terminal_summary(terminalreporter):
    if _again:
        terminalreporter.section("tried again, because processors were stolen")
        for line in _again:
            terminalreporter.write_line(line)


def pytest_configure(config):
    config.addinivalue_line("markers", "measures: compares clocks; see disturbance.py")
