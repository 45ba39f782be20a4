"""C09: ITIMER_PROF survives an exec and kills the next program; per-thread clocks end with the old one."""

import pytest

import harness
import pprof


def test_the_next_program_is_not_killed(out):
    """A program that knows nothing of us, static even, gets no SIGPROF."""
    source = out.with_name("static.c")
    source.write_text("#include <time.h>\nint main(void) { while (clock() < CLOCKS_PER_SEC / 2); return 5; }\n")
    binary = out.with_name("static")
    assert harness.run([harness.tool("gcc"), "-O2", "-static", "-o", binary, source]).status == 0
    r = harness.run([harness.program("ending"), "300", "exec", binary], profile=out)
    assert r.status == 5
    found = harness.wait_until(
        lambda: [f for f in out.parent.glob("*.pb.gz") if pprof.load(f).cum()["work_before_end"] > 0.2e9], 10)
    assert found, list(out.parent.iterdir())


@pytest.mark.measures
def test_the_next_programs_time_is_not_ours(out):
    """The process's CPU clock goes on with the next image: only what each one used is in its profile."""
    burn = "import time\nwhile time.process_time() < 0.8: pass\n"
    with harness.Program([harness.program("ending"), "300", "exec", harness.tool("env"), "-u", "PROFILE", "-u", "LD_PRELOAD",
                     harness.PYTHON, "-c", burn], profile=out) as app:
        assert app.wait(60).status == 0
        first = harness.child_path(out, app.pid, 1)
    pprof.valid(out)
    pprof.valid(first)
    profiles = [pprof.load(f) for f in out.parent.glob("*.pb.gz")] # env's, too
    # env has a few periods, of which chance may make some more.
    bound = 360e6 + 4 * profiles[0].pb.period
    assert 300e6 <= sum(p.ns for p in profiles) < bound, [(p.name, p.ns, p.comments) for p in profiles]
    bracketed = pprof.bracketed_but_full_ns(profiles)
    assert sum(bracketed.values()) < 0.01 * bound, bracketed


def test_goes_on_if_exec_fails(out):
    r = harness.run([harness.program("ending"), "300", "failed-exec"], profile=out)
    assert r.status == 7
    p = pprof.valid(out)
    assert p.cum()["work_before_end"] > 0.2e9 and p.cum()["work_after_failed_exec"] > 0.1e9
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=20e6)


def test_a_long_chain(out):
    """Each image has its file, the last one the name."""
    argv = [harness.program("ending"), "100", "exit"]
    for _ in range(9):
        argv = [harness.program("ending"), "100", "exec", *argv]
    with harness.Program(argv, profile=out) as app:
        assert app.wait(60).status == 7
        pid = app.pid
    wanted = {out} | {harness.child_path(out, pid, n) for n in range(1, 10)}
    for path in wanted:
        assert pprof.valid(path).cum()["work_before_end"] > 50e6
    assert set(out.parent.iterdir()) == wanted
