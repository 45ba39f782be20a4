"""What the machine is, and how quiet it was."""

import os
import platform
import time
from pathlib import Path

from disturbance import Watch
from driver.measure import Figure

SPIN_ROUNDS = 40
SPIN = 200_000


def _first(path, start):
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith(start):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


class Noise:
    """Of the time between its making and `told`: what a hypervisor took; and what the same work took in CPU time, at both
    ends."""

    def __init__(self):
        self._watch = Watch()
        self._spins = self._spin()

    @staticmethod
    def _spin():
        took = []
        for _ in range(SPIN_ROUNDS):
            start = time.thread_time()
            for _ in range(SPIN):
                pass
            took.append(time.thread_time() - start)
        return took

    def told(self):
        share = self._watch.share()
        f = Figure.of(self._spins + self._spin())
        return (f"{100 * share:.1f} % of the processors' time stolen; the same work took {f.low / f.median:.3f} to "
                f"{f.high / f.median:.3f} of its median CPU time (quartiles of {f.n})")


def described():
    hz = round(1 / time.clock_getres(getattr(time, "CLOCK_MONOTONIC_COARSE", 6)))
    return {"processor": f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} of them",
            "hypervisor": "yes" if "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8") else "no",
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
            "kernel": f"{platform.system()} {platform.release()}, tick {hz} Hz"}
