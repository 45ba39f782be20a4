"""C20: a library that is gone at the end, or replaced by another one at the same place, keeps its names."""

import shutil

import pytest

import harness
import pprof


def test_unloaded_library_is_named(out):
    r = harness.run([harness.program("loader"), harness.program("plugin.so"), "5"], profile=out, hz=1000)
    assert r.same == (0, b"done\n", b"")
    p = pprof.valid(out)
    assert p.cum()["work_in_plugin"] == pytest.approx(600e6, rel=0.15)
    assert pprof.bracketed_share([p]) < 0.005, pprof.bracketed_ns([p])


def test_library_file_that_is_deleted_meanwhile(out, tmp_path):
    """It was mapped when it was sampled."""
    library = tmp_path / "plugin.so"
    shutil.copy(harness.program("plugin.so"), library)
    with harness.Program([harness.program("loader"), library, "1"], profile=out) as app:
        harness.wait_until(lambda: "plugin.so" in open(f"/proc/{app.pid}/maps", encoding="utf-8").read(), 10)
        harness.wait_until(lambda: False, 0.3)
        library.unlink()
        assert app.wait(60).status == 0
    assert pprof.valid(out).cum()["work_in_plugin"] == pytest.approx(600e6, rel=0.1)
