"""C20: a library that is gone at the end, or replaced by another one at the same place, keeps its names."""

import shutil

import pytest

import harness
import pprof

pytestmark = pytest.mark.measures


def check(out, r):
    """What it used where is what the program says itself."""
    assert (r.status, r.err) == (0, b""), r
    in_plugin, after = map(int, r.out.split())
    p = pprof.valid(out)
    bracketed = pprof.bracketed_but_full_ns([p])
    assert sum(bracketed.values()) < 0.005 * p.ns + p.pb.period, bracketed
    full = pprof.bracketed_ns([p])["[buffer full]"]
    bound = 0.05 * (in_plugin + after) + 4 * p.pb.period
    for name, used in (("work_in_plugin", in_plugin), ("work_after_unload", after)):
        assert used - full - bound < p.cum()[name] < used + bound, (name, used, full, p.cum()[name])


def test_unloaded_library_is_named(out):
    check(out, harness.run([harness.program("loader"), harness.program("plugin.so"), "5", "say"], profile=out))


def test_library_file_that_is_deleted_meanwhile(out, tmp_path):
    """It was mapped when it was sampled."""
    library = tmp_path / "plugin.so"
    shutil.copy(harness.program("plugin.so"), library)
    with harness.Program([harness.program("loader"), library, "1", "say"], profile=out) as app:
        harness.wait_until(lambda: "plugin.so" in open(f"/proc/{app.pid}/maps", encoding="utf-8").read(), 10)
        harness.wait_until(lambda: False, 0.3)
        library.unlink()
        check(out, app.wait(60))
