"""B15: panics of Rust, coroutines of C++20, LLVM's unwinder and a static one of libgcc's: nothing changes."""

import pytest

import harness
import pprof
from under_barriers import assert_off, assert_used, modes, run, run_until_used

MS = 300
BURN_MS = 20  # at the bottom of each descent of `passing`

EXCEPTIONS = ["catch", "rethrow", "nested", "carry", "foreign", "forced"]


@pytest.fixture(scope="session")
def panics(tmp_path_factory):
    """The program in Rust. Its library is linked in, and has libgcc's unwinder from libgcc_s."""
    path = tmp_path_factory.mktemp("rust") / "panics"
    source = harness.SOURCE / "tests" / "e2e" / "programs" / "panics.rs"
    r = harness.run([harness.tool("rustc"), "--edition", "2021", "-C", "opt-level=2", "-g", "-o", path, source])
    assert r.status == 0, r
    needed = harness.run([harness.tool("readelf"), "-d", path]).out
    assert b"libgcc_s.so.1" in needed, needed
    return path


@modes
def test_panics(panics, mode, out):
    p = run([panics, str(MS)], out, mode)
    assert_used(p, mode)
    assert any(f.name.endswith("descend") for s in p.samples for f in s.frames)


@modes
def test_coroutines(mode, out):
    p = run([harness.program("coroutines"), str(MS)], out, mode)
    assert_used(p, mode)
    assert any("calls(" in f.name for s in p.samples for f in s.frames)


@modes
@pytest.mark.parametrize("what", EXCEPTIONS + ["return"])
def test_unwinder_of_llvm(what, mode, out):
    p = run_until_used(lambda ms: [harness.program("passing_llvm"), what, str(ms)], out, mode)
    assert_used(p, mode)


@modes
def test_static_unwinder_returns(mode, out):
    p = run_until_used(lambda ms: [harness.program("passing_static"), "return", str(ms)], out, mode)
    assert_used(p, mode)


@modes
@pytest.mark.parametrize("what", ["return", "carry", "threads"])
def test_all_is_static(what, mode, out):
    """The one unwinder that there is has no name, and might be on its way when the first barrier is placed: none is."""
    told = assert_off(run([harness.program("passing_static_all"), what, str(BURN_MS)], out, mode),
                      "passing_static_all has an unwinder to itself")
    assert told["placed"] == 0, told


@modes
@pytest.mark.parametrize("what", EXCEPTIONS)
def test_static_unwinder_throws(what, mode, out):
    """No name leads to this unwinder: the first exception that comes to a barrier is the end of all of them."""
    told = pprof.barriers(run_until_used(lambda ms: [harness.program("passing_static"), what, str(ms)], out, mode))
    assert told
    if mode == "all":
        assert told["placed"] > 0 and told["saved"] > 0 and told["restored"] > 0, told
