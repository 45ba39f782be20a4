"""B04: functions of libc that go by their own return address find the caller's, where a stub stood in its place."""

import re
import subprocess

import pytest

import harness
import under_barriers
from under_barriers import modes

WHAT = {  # and what is jumped to
    "next": ["dlsym", "dlvsym"],
    "load": ["dlopen", "dlmopen"],
    "namespace": ["dlmopen"],
    "setjmp": ["setjmp", "_setjmp", "__sigsetjmp"],
    "getcontext": ["getcontext"],
    "swapcontext": ["swapcontext"],
    "vfork": ["vfork"],
    "leaf": [],
}
ROUNDS = 150  # of each, some milliseconds of work
BESIDE = [(), ("stile",), ("interposer",), ("stile", "interposer"), ("interposer", "stile")]
EARLY = [(name, preload) for name in ("early_asker", "early_linked") for preload in BESIDE]
EARLY += [("early_relocated", ()), ("early_relocated", ("stile",))]  # which that interposer does not stand


def test_they_are_jumps():
    """The program does not say so for nothing."""
    for where in ("callers", "libcallers_first.so"):
        code = subprocess.run([harness.tool("objdump"), "-d", "--no-show-raw-insn", harness.program(where)],
                              capture_output=True, text=True, timeout=60, check=True).stdout
        for name in {n for names in WHAT.values() for n in names}:
            body = re.search(rf"<jump_{name}>:\n((?:.+\n)+)", code)[1].splitlines()
            assert "call" in body[3] and re.search(r"\bjmp +\*", body[7]) and "ret" not in "".join(body[:8]), body


@pytest.mark.parametrize("what", WHAT)
def test_barrier_on_every_frame(what, tmp_path):
    """And all stubs used again before anybody goes back."""
    argv = [harness.program("callers"), what, "5"]
    plain = harness.run(argv, timeout=30)
    assert plain.status == 0, plain
    report = tmp_path / "report"
    r = harness.run(argv, env={"LD_PRELOAD": harness.program("libbarring.so"), "BARRING_REPORT": report}, timeout=30)
    assert r.same == plain.same, r
    placed, hit = map(int, re.search(r"placed (\d+) hit (\d+)\n", report.read_text()).groups())
    assert placed > 1000 and hit > 100


@modes
@pytest.mark.parametrize("what", WHAT)
def test_barriers_where_samples_place_them(what, mode, out):
    argv = [harness.program("callers"), what, str(ROUNDS)]
    under_barriers.assert_used(under_barriers.run(argv, out, mode), mode)


def early(name, preload, env=None):
    libraries = {"stile": harness.LIBRARY, "interposer": harness.program("libearly_interposer.so")}
    env = {**(env or {}), "LD_PRELOAD": ":".join(str(libraries[p]) for p in preload)} if preload else env
    return harness.run([harness.program(name)], env=env, timeout=20)


@pytest.mark.parametrize("name,preload", EARLY)
def test_asked_before_we_are_there(name, preload):
    """By a resolver while nothing of ours is relocated yet, by a constructor, and past another's dlsym."""
    r = early(name, preload)
    counted = 1 if "interposer" in preload else -1
    assert r.out == f"resolved 2 constructed 1 found 1 untouched 1 counted {counted}\n".encode(), r
    assert r.status == 0
