"""Children of every kind: each has its own file, and none is another one for being profiled."""

import json
import os
import signal
import subprocess

import pytest

import harness
import pprof


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """The forker program without and with a profile: its two accounts, and the directory of the files."""
    argv = [harness.program("forker"), harness.program("ending"), "200", "_exit"]
    out = tmp_path_factory.mktemp("children") / "out.pb.gz"
    plain, profiled = harness.run(argv), harness.run(argv, profile=out)
    assert (plain.status, plain.err) == (profiled.status, profiled.err) == (9, b"")

    def story(result):  # the children's own output stands before the account
        return json.loads(result.out[result.out.index(b"{"):].replace(b"working\ndone\n", b""))

    return story(plain), story(profiled), out


def files_after(out, names):
    """The files, once those that must be there are."""
    for name in names:
        harness.wait_for_file(name)
    return {f for f in out.parent.iterdir() if not f.name.startswith(".")}


def test_children_end_as_without_a_profile(family):
    plain, profiled, _ = family
    for kind, told in plain.items():
        if kind == "pid":
            continue
        assert profiled[kind]["status"] == told["status"], kind
        assert profiled[kind]["waited"] == profiled[kind]["pid"], kind
    assert os.waitstatus_to_exitcode(profiled["fork_fork"]["status"]) == 12
    assert os.waitstatus_to_exitcode(profiled["vfork_exit"]["status"]) == 6


def test_parent_has_its_own_work_only(family):
    _, told, out = family
    p = pprof.valid(out)
    assert p.cum()["work_in_parent"] == pytest.approx(400e6, rel=0.1)
    assert p.cum()["work_in_child"] == p.cum()["work_in_grandchild"] == 0
    assert {s.labels["pid"] for s in p.samples} == {told["pid"]}


@pytest.mark.parametrize("kind", ["fork_exit_raw", "fork_exit"])
def test_forked_child_has_a_file(family, kind):
    _, told, out = family
    pid = told[kind]["pid"]
    p = pprof.valid(harness.child_path(out, pid))
    assert p.cum()["work_in_child"] == pytest.approx(300e6, rel=0.1)
    assert {s.labels["pid"] for s in p.samples} == {pid}
    assert p.ns == pytest.approx(300e6, rel=0.15)
    assert pprof.bracketed_share([p]) < 0.005, pprof.bracketed_ns([p])


@pytest.mark.parametrize("kind", ["vfork_exec", "spawn"])
def test_executed_child_has_a_file(family, kind):
    _, told, out = family
    p = pprof.valid(harness.child_path(out, told[kind]["pid"]))
    assert p.cum()["work_before_end"] == pytest.approx(200e6, rel=0.15)
    assert p.main_file == harness.program("ending")
    assert {s.labels["pid"] for s in p.samples} == {told[kind]["pid"]}


def test_grandchild_has_a_file(family):
    _, told, out = family
    wanted = {harness.child_path(out, told[k]["pid"])
              for k in ("fork_exit_raw", "fork_exit", "vfork_exec", "spawn")} | {out}
    found = files_after(out, wanted)
    others = [pprof.valid(f) for f in found - wanted]
    assert [p for p in others if p.cum()["work_in_grandchild"] == pytest.approx(300e6, rel=0.1)], others


def test_children_without_a_sample_have_none(family):
    """A forked one that does nothing is seen when its first tick is due in the moment that it lives: one in thirty."""
    _, told, out = family
    idle = harness.child_path(out, told["fork_idle"]["pid"])
    assert not idle.exists() or sum(s.count for s in pprof.valid(idle).samples) == 1
    for kind in ("vfork_exit", "vfork_failed_exec"):
        assert not harness.child_path(out, told[kind]["pid"]).exists(), kind


def test_nothing_is_left_beside_the_files(family):
    """Written aside: no unfinished file stays."""
    _, _, out = family
    pprof.valid(out)
    assert all(f.name.startswith("out.") and f.name.endswith(".pb.gz") for f in out.parent.iterdir())


def test_one_collector_serves_the_tree(out, mark):
    script = '"$@" & "$@" & wait'
    argv = ["/bin/sh", "-c", script, "sh", harness.program("ending"), "1000", "exit"]
    with harness.Program(argv, profile=out) as app:
        harness.wait_until(lambda: app.out.count(b"working") == 2, 20)
        harness.wait_for_collector(mark)
        assert app.wait(30).status == 0
    assert harness.wait_until(lambda: not harness.collectors(mark), 60)  # it ends when it has written all
    files = list(out.parent.iterdir())
    assert len(files) >= 3  # one more for each image before an exec that was sampled
    assert sum(pprof.valid(f).cum()["work_before_end"] for f in files) == pytest.approx(2e9, rel=0.05)


def test_exec_that_is_over_when_it_is_heard_of(out, mark):
    """It is no other process with the same number: its file has the name, and no time is told twice."""
    script = 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo ready; read x; exec "$@"'
    argv = ["/bin/sh", "-c", script, "sh", harness.program("ending"), "100", "raise", "9"]
    with harness.Program(argv, profile=out, stdin=subprocess.PIPE) as app:
        harness.wait_until(lambda: app.out.count(b"ready") == 1, 20)
        collector = harness.wait_for_collector(mark)
        os.kill(collector.pid, signal.SIGSTOP)
        try:
            app.process.stdin.close()
            assert app.wait(30).status == -9
        finally:
            os.kill(collector.pid, signal.SIGCONT)
    assert harness.wait_until(lambda: not harness.collectors(mark), 60)
    earlier = pprof.valid(out.parent / f"out.{app.pid}.1.pb.gz")
    last = pprof.valid(out)
    assert last.ns < 200e6 and last.cum()["[exec and exit]"] < 50e6, last.cum()
    assert earlier.ns > 0


def test_daemon(out, tmp_path):
    """daemon(3): the parent leaves at once; its child goes on in another session, another directory."""
    done = tmp_path / "done"
    r = harness.run([harness.program("daemonize"), done], profile=out.name, cwd=out.parent)
    assert r.same == (0, b"", b"")
    assert pprof.valid(out).cum()["work_before_daemon"] == pytest.approx(300e6, rel=0.1)
    assert harness.wait_until(lambda: done.exists() and done.read_text().endswith("\n"), 20)
    p = pprof.valid(harness.child_path(out, int(done.read_text())))
    assert p.cum()["work_in_daemon"] == pytest.approx(400e6, rel=0.1)
    assert p.cum()["work_before_daemon"] == 0


def test_many_short_children(out):
    """A burst of children that live a few milliseconds: nobody waits, nothing is left."""
    script = "i=0; while [ $i -lt 300 ]; do /bin/true & i=$((i+1)); done; wait; echo end"
    plain = harness.run(["/bin/sh", "-c", script], timeout=120)
    profiled = harness.run(["/bin/sh", "-c", script], profile=out, timeout=120)
    assert profiled.same == plain.same == (0, b"end\n", b"")
    assert harness.wait_until(lambda: not list(out.parent.glob(".*.tmp")), 60)
    for f in out.parent.iterdir():
        pprof.valid(f)
