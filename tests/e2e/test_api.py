"""stile.h, through a program that is linked with the library."""

import os
import re
import signal

import pytest

import harness
import pprof


def api(*steps, **options):
    return harness.run([harness.program("api"), *steps], timeout=60, **options)


def said(r):
    assert r.status == 0, r
    return harness.lines(r.out)


def test_start_and_stop(out):
    r = api("work2", f"start:{out}", "work1", "stop", "work2")
    assert said(r) == ["start: 0", "stop: 0"] and r.err == b""
    p = pprof.valid(out, timeout=0)
    assert p.cum()["work_one"] == pytest.approx(400e6, rel=0.1)
    assert p.cum()["work_two"] == 0
    assert p.ns == pytest.approx(400e6, rel=0.15)


def test_twice(out):
    second = out.with_name("second.pb.gz")
    r = api(f"start:{out}", "work1", "stop", f"start:{second}:{harness.TICK_HZ}", "work2", "stop")
    assert said(r) == ["start: 0", "stop: 0"] * 2 and r.err == b""
    first, last = pprof.valid(out, timeout=0), pprof.valid(second, timeout=0)
    assert first.cum()["work_one"] == pytest.approx(400e6, rel=0.1) and first.cum()["work_two"] == 0
    assert last.cum()["work_two"] == pytest.approx(400e6, rel=0.1) and last.cum()["work_one"] == 0
    assert last.count == pytest.approx(0.4 * harness.TICK_HZ, rel=0.2)


def test_twenty_times(out):
    steps = [s for i in range(20) for s in (f"start:{out.with_name(f'{i}.pb.gz')}", "stop")]
    r = api(*steps)
    assert said(r) == ["start: 0", "stop: 0"] * 20 and r.err == b""
    for i in range(20):
        pprof.valid(out.with_name(f"{i}.pb.gz"), timeout=0)


def test_same_file_twice(out):
    r = api(f"start:{out}", "work1", "stop", f"start:{out}", "work2", "stop")
    assert said(r) == ["start: 0", "stop: 0"] * 2
    p = pprof.valid(out, timeout=0)
    assert p.cum()["work_one"] == 0 and p.cum()["work_two"] > 300e6


def test_flush(out):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin:
        app = harness.Program([harness.program("api"), f"start:{out}", "work1", "flush", "wait", "work2", "stop"],
                              stdin=stdin)
    with app:
        app.wait_output("flush: 0")
        p = pprof.valid(out, timeout=0)
        assert p.cum()["work_one"] == pytest.approx(400e6, rel=0.1) and p.cum()["work_two"] == 0
        os.write(writer, b"go\n")
        os.close(writer)
        r = app.wait(60)
    assert said(r) == ["start: 0", "flush: 0", "stop: 0"] and r.err == b""
    p = pprof.valid(out, timeout=0)
    assert p.cum()["work_one"] == pytest.approx(400e6, rel=0.1)
    assert p.cum()["work_two"] == pytest.approx(400e6, rel=0.1)


def test_killed_after_flush(out):
    with harness.Program([harness.program("api"), f"start:{out}", "work1", "flush", "work2", "wait"],
                         stdin=None) as app:
        app.wait_output("flush: 0")
        app.signal(signal.SIGKILL)
        app.wait(20)
    assert pprof.valid(out).cum()["work_one"] == pytest.approx(400e6, rel=0.1)


def test_double_start(out):
    """The first goes on."""
    second = out.with_name("second.pb.gz")
    r = api(f"start:{out}", f"start:{second}", "work1", "stop", "stop")
    assert said(r) == ["start: 0", "start: EALREADY", "stop: 0", "stop: ESRCH"]
    assert pprof.valid(out, timeout=0).cum()["work_one"] > 300e6
    assert not second.exists()


def test_start_beside_the_environment(out):
    second = out.with_name("second.pb.gz")
    r = api(f"start:{second}", "work1", env={"PROFILE": out})
    assert said(r) == ["start: EALREADY"]
    assert pprof.valid(out, timeout=0).cum()["work_one"] > 300e6
    assert not second.exists()


def test_stop_of_what_the_environment_started(out):
    r = api("work1", "stop", "work2", env={"PROFILE": out})
    assert said(r) == ["stop: 0"]
    p = pprof.valid(out, timeout=0)
    assert p.cum()["work_one"] > 300e6 and p.cum()["work_two"] == 0


def test_nothing_was_started():
    assert said(api("stop", "flush", "work1")) == ["stop: ESRCH", "flush: ESRCH"]


def test_linked_and_preloaded(out):
    r = api("work1", profile=out)
    assert r.status == 0 and r.err == b""
    assert pprof.valid(out).cum()["work_one"] == pytest.approx(400e6, rel=0.1)


def test_without_stop(out):
    """Its end is its stop."""
    r = api(f"start:{out}", "work1")
    assert said(r) == ["start: 0"]
    assert out.exists()
    assert pprof.valid(out).cum()["work_one"] > 300e6


def test_bad_options(out):
    r = api(f"bad:{out}", "null", f"start:{out}", "work1", "stop")
    told = dict(line.split(": ") for line in said(r))
    assert told["bad size 0"] == told["bad size 3"] == "EINVAL"
    assert told["bad newer"] in ("EINVAL", "E2BIG")
    assert told["bad hz"] == "EINVAL"
    assert told["bad path"] == "ENOENT"
    assert told["null"] == "EINVAL"
    assert told["start"] == told["stop"] == "0"
    assert pprof.valid(out).cum()["work_one"] > 300e6


def test_path_that_names_no_profile(out):
    r = api("start:release", f"start:{out.with_name('out.txt')}")
    assert said(r) == ["start: EINVAL"] * 2
    assert list(out.parent.iterdir()) == []


def test_missing_collector_is_an_error(out):
    r = api(f"start:{out}", "work1", "stop", env={"PROFILE_COLLECTOR": "/nonexistent/stile"})
    assert said(r) == ["start: ENOENT", "stop: ESRCH"]


def test_version():
    version = said(api("version"))[0].removeprefix("version: ")
    cmake = (harness.SOURCE / "CMakeLists.txt").read_text()
    assert version == re.search(r"project\(stile VERSION ([\d.]+)", cmake).group(1)
    tool = harness.run([harness.STILE, "--version"], timeout=20)
    assert version.encode() in tool.out
