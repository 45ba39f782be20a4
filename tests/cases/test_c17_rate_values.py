"""C17: one tick a second is a rate; nothing, less and too much are none, and are told as such."""

import json

import pytest

import harness
import pprof

NONE = ["0", "-1", "1000000000", "1e9", "abc", "20001", "", " ", "100Hz", "1e3", "0x10", "1.5", "+-3",
        "99999999999999999999"]


def test_one_hertz(out):
    """The slowest rate: each second of CPU time is one sample, somewhere in it."""
    r = harness.run([harness.program("usage"), "threads", "2", "1500"], profile=out, hz=1)
    assert (r.status, r.err) == (0, b"")
    p = pprof.valid(out)
    assert 2 <= p.count <= 5
    assert p.pb.period == 10**9
    assert p.ns == pytest.approx(json.loads(r.out)["process"], abs=1.05e9)


def test_rates_that_are_none(out):
    """One line, and the program runs without a profile."""
    for value in NONE:
        r = harness.run([harness.program("ending"), "1", "exit"], profile=out, hz=value)
        assert (r.status, r.out) == (7, b"working\ndone\n"), (value, r)
        assert f"PROFILE_HZ={value} is not a number from 1 to 20000" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


def test_record_refuses_them(out):
    """Before anything runs."""
    for value in NONE:
        r = harness.run([harness.STILE, "record", "-F", value, "-o", out, "--", "echo", "not this"])
        assert r.status != 0 and r.out == b"" and b"1 to 20000" in r.err, (value, r)
    assert list(out.parent.iterdir()) == []
