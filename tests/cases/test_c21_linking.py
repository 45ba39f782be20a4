"""C21: a profiler's library is dropped by --as-needed, since the program uses no symbol of it: pkg-config and CMake keep it."""

import shutil

import pytest

import harness
import pprof

CONSUMER = harness.SOURCE / "tests" / "install" / "consumer"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory, session_mark):  # pylint: disable=unused-argument
    """What `cmake --install` puts somewhere."""
    place = tmp_path_factory.mktemp("prefix")
    r = harness.run([harness.tool("cmake"), "--install", harness.BUILD, "--prefix", place], timeout=120)
    if r.status != 0 or not list(place.rglob("libstile.so")):
        pytest.skip(f"nothing to install here: {r}")
    return place


def needed(program):
    out = harness.run([harness.tool("readelf"), "-dW", program]).out.decode()
    return [line for line in out.splitlines() if "(NEEDED)" in line and "[libstile.so" in line]


def directory_of(prefix):
    return next(prefix.rglob("libstile.so")).parent


def by_pkg_config(prefix, place):
    env = {"PKG_CONFIG_PATH": directory_of(prefix) / "pkgconfig"}
    words = [harness.run([harness.tool("pkg-config"), flag, "stile"], env=env).out.decode().split()
             for flag in ("--cflags", "--libs")]
    assert all(words), words
    program = place / "consumer"
    r = harness.run([harness.tool("gcc"), "-O1", *words[0], "-Wl,--as-needed", CONSUMER / "main.c", "-o", program,
                     *words[1]], timeout=60)
    assert r.status == 0, r
    return program


def by_cmake(prefix, place):
    env = {"LDFLAGS": "-Wl,--as-needed"}
    for argv in ([harness.tool("cmake"), "-S", CONSUMER, "-B", place / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
                 [harness.tool("cmake"), "--build", place / "build"]):
        r = harness.run(argv, env=env, timeout=120)
        assert r.status == 0, r
    return place / "build" / "consumer"


@pytest.fixture(scope="module", params=[by_pkg_config, by_cmake], ids=["pkg-config", "cmake"])
def consumer(request, prefix, tmp_path_factory):
    return request.param(prefix, tmp_path_factory.mktemp("consumer"))


def test_linked_and_profiled(out, prefix, setting, consumer):
    """It calls nothing of the library, and PROFILE is all that it takes; without it there is not a word."""
    assert needed(consumer)
    env = {"LD_LIBRARY_PATH": directory_of(prefix)}
    assert harness.run([consumer], env=env).same == (0, b"", b"")
    assert list(out.parent.iterdir()) == []
    r = harness.run([consumer], env={**env, **setting.environment, "PROFILE": out})
    assert r.same == (0, b"", b"")
    p = pprof.valid(out)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.1, abs=60e6) and p.cum()["main"] > 0.15e9


def test_as_needed_drops_a_library(prefix, tmp_path):
    """Named plainly it is dropped: what is shown above is shown."""
    shutil.copy(CONSUMER / "main.c", tmp_path)
    r = harness.run([harness.tool("gcc"), "-O1", f"-I{prefix}/include", "-Wl,--as-needed", tmp_path / "main.c", "-o",
                     tmp_path / "plain", f"-L{directory_of(prefix)}", "-lstile"], timeout=60)
    assert r.status == 0 and not needed(tmp_path / "plain"), r
