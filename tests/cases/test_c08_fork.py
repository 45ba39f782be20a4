"""C08: timers are not inherited, descriptors and buffers are; a forked child has its own of all."""

import pytest

import harness
import pprof

FORKS = """
import os, sys
def work(n):
    return sum(i * i for i in range(n))
for generation in range(3):
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        work(2000000)
        sys.exit(os.waitstatus_to_exitcode(status) + 1)
work(4000000)
sys.exit(10)
"""


def test_every_generation_is_profiled_and_no_file_is_damaged(out):
    r = harness.run([harness.PYTHON, "-c", FORKS], profile=out)
    assert r.same == (13, b"", b"")
    found = harness.wait_until(lambda: len(list(out.parent.glob("*.pb.gz"))) == 4 and list(out.parent.iterdir()), 10)
    assert found, list(out.parent.iterdir())
    profiles = [pprof.valid(f) for f in found]
    for p in profiles:
        pids = {s.labels["pid"] for s in p.samples}
        assert len(pids) == 1
        assert p.name in ("out.pb.gz", f"out.{pids.pop()}.pb.gz")
        # On a busy machine the clocks of a process and of its thread may part by what the kernel books at a tick.
        bracketed = pprof.bracketed_but_full_ns([p])
        assert sum(bracketed.values()) < 0.005 * p.ns + 1e9 / harness.TICK_HZ, bracketed
    assert sum(p.ns for p in profiles) == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)


def test_fork_in_a_program_with_threads(out):
    """The child has one thread, whichever forked."""
    code = ("import os, sys, threading, hashlib\n"
            "def spin(n):\n"
            "    d = b'x' * 65536\n"
            "    for _ in range(n): hashlib.sha256(d).digest()\n"
            "threads = [threading.Thread(target=spin, args=(3000,)) for _ in range(3)]\n"
            "[t.start() for t in threads]\n"
            "def forker():\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        spin(1500)\n"
            "        os._exit(21)\n"
            "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n"
            "t = threading.Thread(target=forker); t.start(); t.join()\n"
            "[t.join() for t in threads]\n")
    r = harness.run([harness.PYTHON, "-c", code], profile=out)
    assert r.same == (0, b"21\n", b"")
    found = harness.wait_until(lambda: len(list(out.parent.glob("*.pb.gz"))) == 2 and list(out.parent.iterdir()), 10)
    assert found, list(out.parent.iterdir())
    for p in map(pprof.valid, found):
        if p.name != out.name:
            assert len(p.by_label("tid")) == 1 and p.ns > 50e6
