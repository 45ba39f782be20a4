"""C44: thousands of children of a few milliseconds, forked and executed, a hundred at once: every one is accounted, in one file."""

import json
import os
import subprocess

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures

CHILDREN = 2500 if os.environ.get("STILE_TEST_LONG") else 150  # with four settings: ten thousand
AT_ONCE = 100
US = 2000


def brood(out, setting, how, children=CHILDREN, us=US, at_once=AT_ONCE):
    env = {"PROFILE_BARRIERS": setting.barriers}
    argv = setting.record(out) + [harness.program("brood"), how, children, at_once, us]
    r = harness.run(argv, env=env, timeout=900)
    told = json.loads(r.out) if r.out else None
    assert r.status == 0 and told and told["well"] == children, r
    assert "was not profiled" not in r.err.decode() and "cannot" not in r.err.decode(), r
    return r, told


@pytest.mark.parametrize("how", ["fork", "exec", "spawn"])
def test_all_are_accounted(out, setting, how):
    """A child of two milliseconds is a fifth of a period at 100 Hz: only the sum can be right there. What is due when a child
    ends is taken there, and not in what it did before."""
    _, told = brood(out, setting, how)
    assert [f.name for f in out.parent.iterdir()] == [out.name]
    p = pprof.valid(out)
    used = told["children"] + told["self"]
    assert p.ns == pytest.approx(used, rel=0.02, abs=5e6), p.comments
    assert f"processes: {CHILDREN + 1}, " in "\n".join(p.comments)
    if setting.hz == 10000:
        assert p.cum()["work_in_brood"] == pytest.approx(CHILDREN * US * 1000, rel=0.2)
        by_pid = {s.labels["pid"] for s in p.samples if any(f.name == "work_in_brood" for f in s.frames)}
        assert len(by_pid) > 0.95 * CHILDREN


def test_bare_clones(out, setting):
    """Nobody hears of a bare clone: it has no session, and does nothing to its parent's. Its time is told all the same."""
    _, told = brood(out, setting, "clone", children=100)
    p = pprof.valid(out)
    assert p.ns == pytest.approx(told["self"] + told["children"], rel=0.02, abs=1e9 / setting.hz + 10e6), p.comments
    assert p.cum()["[children not profiled]"] == pytest.approx(told["children"], rel=0.1, abs=1e9 / setting.hz + 10e6)


def test_forked_while_the_collector_is_gone(out, setting, mark):
    """Each has a collector of its own then, and its file beside the parent's; nobody waits long."""
    code = ("import os, sys, time\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "end = time.process_time() + 0.1\n"
            "pid = os.fork()\n"
            "while time.process_time() < end: pass\n"
            "if pid == 0: os._exit(9)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n")
    with harness.Program([harness.PYTHON, "-c", code], profile=out, stdin=subprocess.PIPE) as app:
        app.wait_output("ready")
        harness.end_process(harness.wait_for_collector(mark))
        harness.wait_until(lambda: not harness.collectors(mark), 10)
        app.process.stdin.write(b"\n")
        app.process.stdin.flush()
        r = app.wait(60)
    assert (r.status, r.out) == (0, b"ready\n9\n"), r
    found = harness.wait_until(lambda: list(out.parent.glob("out.*.pb.gz")), 20)
    assert found and pprof.valid(found[0]).ns > 0.03e9
