"""C14: threads that live less than a period, and less than the kernel's tick, are a part of the sum."""

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def test_short_threads_in_large_numbers(out):
    """Each lives less than a period: only the sum can be right."""
    code = ("import threading, hashlib\n"
            "d = b'x' * 65536\n"
            "def spin():\n"
            "    for _ in range(40): hashlib.sha256(d).digest()\n"
            "for _ in range(600):\n"
            "    t = threading.Thread(target=spin); t.start(); t.join()\n")
    r = harness.run([harness.PYTHON, "-c", code], profile=out)
    assert r.same == (0, b"", b"")
    p = pprof.valid(out)
    main = p.by_label("tid")[p.samples[0].labels["pid"]]
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.2)
    assert p.ns - main > 0.5 * p.ns
