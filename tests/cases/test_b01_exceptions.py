"""B01: exceptions, forced unwinds and foreign ones pass barriers, whatever unwinder a program has."""

import re

import pytest

import harness
import pprof
import under_barriers

WHAT = ["catch", "rethrow", "nested", "meanwhile", "terminate", "carry", "foreign", "forced", "threads", "return"]
PROGRAMS = {  # and the unwinder that it has
    "passing": "libgcc_s.so.1",
    "passing_static": "passing_static",
    "passing_static_all": "passing_static_all",
    "passing_llvm": "libunwind.so.1",
    "passing_nongnu": "libunwind.so.8",
}
LIMITS = {  # of these combinations, without barriers
    ("passing_llvm", "threads"): "libc ends threads by libgcc's unwinder, whose frames LLVM's does not understand",
}
# Neither unwinder nor program has a name by which an exception that is on its way could be carried on.
OPEN = {("passing_static_all", "meanwhile")}


def barred(report):
    return {"LD_PRELOAD": harness.program("libbarring.so"), "BARRING_REPORT": report}


def pairs():
    return [pytest.param(p, w, marks=pytest.mark.xfail(strict=True) if (p, w) in OPEN else ())
            for p in PROGRAMS for w in WHAT if (p, w) not in LIMITS]


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_has_its_unwinder(name):
    r = harness.run([harness.program(name), "unwinder"])
    assert r.status == 0 and r.out.decode().strip().rsplit("/", 1)[-1] == PROGRAMS[name], r


@pytest.mark.parametrize("name,what", pairs())
def test_barrier_on_every_frame(name, what, tmp_path):
    plain = harness.run([harness.program(name), what], timeout=20)
    assert plain.status == 0 and harness.lines(plain.out)[-1] == "done", plain
    r = harness.run([harness.program(name), what], env=barred(tmp_path / "report"), timeout=20)
    assert r.same == plain.same, r
    placed, hit = map(int, re.fullmatch(r"placed (\d+) hit (\d+)\n", (tmp_path / "report").read_text()).groups())
    if what != "terminate":  # there children have them
        # One unwinder without a name, and no more are placed.
        assert placed > (6 if "static" in name else 50) and 0 < hit < placed, (placed, hit)


@pytest.mark.parametrize("name", ["passing", "passing_static", "passing_llvm", "passing_nongnu"])
def test_each_instruction_of_a_landing(name, tmp_path):
    r = harness.run([harness.program(name), "steps"], env=barred(tmp_path / "report"), timeout=20)
    assert r.status == 0, r
    assert harness.lines(r.out)[0] == "stepped 5: guards 6, thrown 1 made 0 gone"
    found = re.fullmatch(r"landings (\d+) at push (\d+) mov (\d+) jmp (\d+), wrong there (\d+) (\d+) (\d+), "
                         r"misaligned (\d+)", harness.lines(r.out)[1])
    landings, *at, push, mov, jmp, misaligned = map(int, found.groups())
    assert landings >= (1 if "static" in name else 6) and at == 3 * [landings], r
    assert (push, jmp, misaligned) == (0, 0, 0), r
    # LLVM's takes what was interrupted for a caller: behind any push it is one off.
    assert mov == 0 or name == "passing_llvm", r


@under_barriers.modes
@pytest.mark.parametrize("name", PROGRAMS)
def test_barriers_where_samples_place_them(name, out, mode):
    """The same under the library itself, in one process after another. An unwinder that a program has to itself could not
    carry all of them (OPEN): where there is one, none is placed."""
    placed, off = 0, set()
    for what in WHAT:
        if (name, what) in LIMITS:
            continue
        plain = harness.run([harness.program(name), what], timeout=20)
        r = harness.run([harness.program(name), what, "2"], profile=out, hz=under_barriers.HZ,
                        env=under_barriers.environment(mode), timeout=30)
        assert r.same == plain.same, (what, r)
        told = pprof.barriers(pprof.valid(out))
        placed += told["placed"]
        off.add(told["off"])
        out.unlink()
    if name == "passing_static_all":
        assert placed == 0 and "passing_static_all has an unwinder to itself" in off, (placed, off)
    else:
        met = {"an exception was carried by an unwinder that exports nothing"} if name == "passing_static" else set()
        assert (placed > 0 or mode == "auto") and off - met == {None}, (placed, off)
