"""C30: a second start says so, and the first goes on."""

import os
import shutil

import harness
import pprof


def test_environment_and_call(out):
    second = out.with_name("second.pb.gz")
    r = harness.run([harness.program("api"), f"start:{second}", "work1"], profile=out)
    assert r.same == (0, b"start: EALREADY\n", b"")
    assert pprof.valid(out).cum()["work_one"] > 300e6
    assert not second.exists()


def test_library_preloaded_twice(out, tmp_path):
    """Two copies of it: one profile, and the program as it was."""
    copy = tmp_path / "lib" / "libstile.so"
    copy.parent.mkdir()
    shutil.copy(harness.LIBRARY, copy)
    r = harness.run([harness.program("ending"), "300", "exit"],
                    env={"PROFILE": out, "LD_PRELOAD": f"{harness.LIBRARY}:{copy}",
                         "PROFILE_COLLECTOR": os.fspath(harness.STILE)})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert len(harness.lines(r.err)) <= 1
    assert pprof.valid(out).cum()["work_before_end"] > 200e6
