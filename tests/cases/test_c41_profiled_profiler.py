"""C41: Stile under Stile, and its preload inherited by what it starts: no chain of collectors, and each file whole."""

import harness
import pprof
from endings import assert_kept, ending


def no_chain(mark):
    """All that was started has come to its end."""
    assert harness.wait_until(lambda: not harness.collectors(mark), 20, 0.02), harness.collectors(mark)


def test_record_of_record(out, setting, mark):
    inner = out.with_name("inner.pb.gz")
    with harness.Program([*setting.record(out), *setting.record(inner), *ending("exit")]) as app:
        most = 0
        while app.poll() is None:
            most = max(most, len(harness.collectors(mark)))
        r = app.wait(60)
    assert (r.status, r.out) == (7, b"working\ndone\n"), r
    assert most <= 2
    no_chain(mark)
    files = [f for f in out.parent.iterdir() if pprof.valid(f).cum()["work_before_end"]]
    assert len(files) == 1, files
    assert_kept(pprof.load(files[0]))


def test_top_under_a_profile(out, mark):
    """The profiler's own processes are not profiled: they are as they would be, and there is no file."""
    source = out.with_name("source.pb.gz")
    assert harness.run(ending("exit"), profile=source).status == 7
    plain = harness.run([harness.STILE, "top", source])
    r = harness.run([harness.STILE, "top", source], profile=out)
    assert r.same == plain.same and plain.status == 0 and b"_start" in plain.out
    no_chain(mark)
    assert list(out.parent.iterdir()) == [source]


def test_collector_is_not_profiled(out, mark):
    """PROFILE and LD_PRELOAD are in the environment of whoever starts it, and not in its own."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        collector = harness.wait_for_collector(mark)
        assert "libstile" not in open(f"/proc/{collector.pid}/maps", encoding="utf-8").read()
        assert not [k for k in collector.environment if k.startswith("PROFILE") or k == "LD_PRELOAD"]
        app.signal(15)
        app.wait(20)
    assert_kept(pprof.valid(out))
    no_chain(mark)
    assert list(out.parent.iterdir()) == [out]


def test_collector_by_hand_under_a_profile(out, mark):
    """`stile collect` is for programs to start: it says so, profiled or not."""
    r = harness.run([harness.STILE, "collect"], profile=out)
    assert r.status == 2 and "not by hand" in r.err.decode()
    no_chain(mark)
