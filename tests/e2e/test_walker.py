"""Walks through frames that are hard to walk through: what is on the stack is in the profile, all of it and nothing else.

Chance decides where a sample falls, not what its stack is: what is asserted holds for every single one.
"""

import os
import re
import subprocess
from collections import Counter

import pytest

import harness
import pprof

HZ = 10000
SIGNAL = "<signal>"  # in place of where the kernel lets a handler return to, whose name libc keeps for itself

# What any function may be found in: reading a clock, binding a function that is called for the first time.
PASSING = re.compile(r"(__)?(vdso_)?clock_gettime|_dl_runtime_resolve.*|_dl_fixup")


def file_of(frame):
    return os.path.basename(frame.mapping.filename) if frame.mapping else ""


def is_plt(frame, p):
    """An entry of the linkage table has no name, and is named by the table's place."""
    return frame.mapping and frame.mapping.filename == p.main_file and pprof.UNRESOLVED.search(frame.name)


def is_passing(frame, p):
    return (PASSING.fullmatch(frame.name) or is_plt(frame, p) or file_of(frame).startswith(("ld-linux", "[vdso")) or
            "vdso" in file_of(frame))


def is_agent(frames):
    """The agent's own work at the ends of threads and programs."""
    return any(file_of(f) == "libstile.so" for f in frames)


def is_return_from_handler(frame):
    return frame.name == "__restore_rt" or (file_of(frame).startswith("libc.so") and pprof.UNRESOLVED.search(frame.name))


def own(frames, p):
    """The names of a stack, leaf first, without what is called in passing, and without what is above main."""
    names, leaf = [], True
    for f in frames:
        if is_return_from_handler(f) and names:
            names.append(SIGNAL)
            leaf = True
        elif leaf and is_passing(f, p):
            continue
        elif is_return_from_handler(f):
            names.append(SIGNAL)
        else:
            names.append(f.name)
            leaf = False
        if f.name == "main":
            break
    return tuple(names)


def within(names, chain):
    """Whether a stack is where this chain of calls can be: in one of its functions, with all its callers."""
    return 0 < len(names) <= len(chain) and chain[len(chain) - len(names):] == names


def show(stacks):
    """The most frequent of some stacks, {names: count}, as text."""
    return "\n".join(f"{n} {' < '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
                     for names, n in Counter(stacks).most_common(8))


def profile(argv, out, hz=HZ, output=b"done\n", **env):
    """Runs a program and reads its profile. Few stacks are not whole: that is for the test to say whose."""
    plain = harness.run(argv, env=env)
    r = harness.run(argv, profile=out, hz=hz, env=env)
    assert r.same == plain.same == (0, output, b""), (r, plain)
    return pprof.valid(out)


def assert_chains(p, chains, passing_share=0.005, functions=None):
    """Every stack with one of main's functions is in one of the chains, which are leaf first and end below main, and
    goes on to where the program starts. One that is broken off is right as far as it goes, and there are few."""
    chains = [(*chain, "main") for chain in chains]
    known = {name for chain in chains for name in chain}
    wrong, other, tails = Counter(), 0, Counter()
    for frames, s in p.calls():
        why = pprof.reason(s)
        if why:
            frames = frames[:-1]
        if is_agent(frames) or not frames:
            continue
        names = own(frames, p)
        if not known & set(names) - {"main"}:
            other += s.ns  # loading, starting and ending
            if "main" not in names or not any(file_of(f) == os.path.basename(p.main_file) for f in frames
                                              if f.name not in ("main", "_start") and not is_plt(f, p)):
                continue
        if why:
            whole = [c for c in chains if any(within(names, c[:n]) for n in range(len(names), len(c) + 1))]
            if not whole:
                wrong[(*names, why)] += s.count
            continue
        if not any(within(names, c) for c in chains):
            wrong[names] += s.count
            continue
        at = max(i for i, f in enumerate(frames) if f.name == "main")
        tails[tuple(f.name for f in frames[at + 1:])] += s.count
        if not pprof.is_start(frames[-1]):
            wrong[tuple(f.name for f in frames)] += s.count
    assert not wrong, show(wrong)
    assert len(tails) == 1, tails
    assert other <= 0.02 * p.ns + 20e6, (other, p.ns)
    assert pprof.bracketed_share([p]) <= passing_share, pprof.bracketed_ns([p])


def leaf_time(p, below):
    """Nanoseconds by the innermost function that is no passing one, of the stacks with a function."""
    total = Counter()
    for frames, s in p.calls():
        if any(f.name == below for f in frames):
            names = own(frames, p)
            if names:
                total[names[0]] += s.ns
    return total


# --- Odd frames

# By part: what its functions call, leaf first, as far as each call shows on the stack.
COLD = "with_cold_part"
ODD = {
    "chain": [("chain_c", "chain_b", "chain_a")],
    "alloca": [("alloca_leaf", "alloca_middle", "alloca_outer")],
    "drap": [("drap_leaf", "drap_array", "drap_outer"), ("drap_leaf", "drap_arguments", "drap_array", "drap_outer")],
    "large": [("large_leaf", "large_outer"), ("large_leaf", "large_middle", "large_outer")],
    "tail": [("chain_c", "tail_a"), ("chain_c", "tail_b"), ("tail_c",)],
    "cold": [("chain_c", COLD), ("cold_note", COLD), ("chain_c", "cold_function")],
    "asm_pusher": [("asm_leaf", "asm_pusher")],
    "asm_cfa_rax": [("asm_cfa_in_rax",)],
    "asm_cfa_r11": [("asm_cfa_in_r11",)],
    "asm_cfa_rbx": [("asm_leaf", "asm_cfa_in_rbx")],
    "asm_rbp": [("asm_rbp_leaf", "asm_rbp_garbage")],
    "asm_return": [("asm_return_in_r11",)],
    "noreturn": [("chain_c", "noreturn_work", "asm_ends_with_noreturn")],
    "plt": [("tiny_add",)],
    "vdso": [()],
}
# Where no time is spent but in what is called.
ONLY_CALLS = {"asm_ends_with_noreturn"}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """All parts, six hundred milliseconds each."""
    return profile([harness.program("odd_frames"), "600"], tmp_path_factory.mktemp("odd") / "out.pb.gz")


def test_odd_frames_are_whole(odd):
    assert_chains(odd, [(*chain, f"part_{part}") for part, chains in ODD.items() for chain in chains])


@pytest.mark.parametrize("part", ODD)
def test_odd_frames_are_sampled(odd, part):
    """Each function of a part was found at work: otherwise nothing was proven of it."""
    wanted = {name for chain in ODD[part] for name in chain} - ONLY_CALLS
    total = odd.cum()[f"part_{part}"]
    assert total == pytest.approx(600e6, rel=0.15)
    found = leaf_time(odd, f"part_{part}")
    assert not {name for name in wanted if found[name] < 0.003 * total}, found


def test_odd_frames_are_odd():
    """The compiler has made what the test is about, and the samples fall where it is hard."""
    binary = harness.program("odd_frames")
    names = subprocess.run([harness.tool("nm"), binary], capture_output=True, text=True, check=True).stdout
    assert re.search(r" t with_cold_part\.cold$", names, re.M)
    frames = subprocess.run([harness.tool("readelf"), "-wf", binary], capture_output=True, text=True,
                            check=True).stdout
    assert frames.count("DW_CFA_def_cfa_expression") >= 2, "one is the linkage table's, one is drap_array's"
    code = subprocess.run([harness.tool("objdump"), "-d", "--no-show-raw-insn", binary], capture_output=True, text=True,
                          check=True).stdout
    assert re.search(r"call +\S+ <tiny_add@plt>", code)
    assert re.search(r"jmp +\S+ <tail_b>", code) and re.search(r"jmp +\S+ <tail_c>", code)
    assert re.search(r"call +\S+ <noreturn_work>\n\n[0-9a-f]+ <asm_after_noreturn>", code)


def test_samples_fall_into_prologues_and_epilogues(odd):
    """At most of the instructions between which the stack pointer differs."""
    places = {frames[0].address for frames, _ in odd.calls() if frames and frames[0].name == "asm_pusher"}
    assert len(places) >= 10, [hex(a) for a in sorted(places)]


def test_binding_at_each_call(tmp_path):
    """From the linkage table through the loader and into the function, with no call among the steps."""
    p = profile([harness.program("odd_frames"), "plt", "1000"], tmp_path / "out.pb.gz", LD_BIND_NOT="1")
    assert_chains(p, [("tiny_add", "part_plt")])
    loader = Counter()
    for frames, s in p.calls():
        if pprof.reason(s) or not any(f.name == "part_plt" for f in frames):
            continue
        names = [f.name for f in frames if file_of(f).startswith("ld-linux")]
        if names:
            loader[names[-1]] += s.ns
            assert frames[len(names)].name == "part_plt", [f.name for f in frames]
    assert sum(loader.values()) > 0.5 * p.ns, loader
    assert max(loader.values()) > 0.95 * sum(loader.values()), loader  # all enter the loader in the same function


# --- Signal handlers

INTERRUPTED = ("interrupted_c", "interrupted_b", "interrupted")
FIRST = ("spin_in_first", "on_first", SIGNAL)
SECOND = ("spin_in_second", "on_second", SIGNAL)
ANYWHERE = ("anywhere_c", "anywhere_b", "anywhere_a", "interrupted_anywhere")


def signals(way, out, ms):
    return profile([harness.program("nested_signals"), way, ms], out)


@pytest.mark.parametrize("way", ["normal", "alternate"])
def test_handlers(out, way):
    p = signals(way, out, 1000)
    assert_chains(p, [(*FIRST, *INTERRUPTED)])
    assert p.cum()["interrupted"] > 0.95 * p.ns


@pytest.mark.parametrize("way", ["nested", "alternate_nested"])
def test_handlers_in_handlers(out, way):
    p = signals(way, out, 700)
    assert_chains(p, [(*FIRST, *INTERRUPTED), (*SECOND, "on_first", SIGNAL, *INTERRUPTED)])
    assert p.cum()["interrupted"] > 0.95 * p.ns
    assert p.cum()["on_second"] == pytest.approx(700e6, rel=0.1)


def test_handler_at_the_first_instruction(out):
    """What a signal interrupted is not one before its address, as what a call returns to is."""
    p = signals("first", out, 1000)
    assert_chains(p, [(*FIRST, "traps_at_first", "interrupted_at_first")])
    assert p.cum()["interrupted_at_first"] > 0.95 * p.ns


@pytest.mark.parametrize("way", ["anywhere", "anywhere_alternate"])
def test_handlers_anywhere(out, way):
    """Interrupted by a timer: in the middle of prologues and epilogues as well."""
    p = signals(way, out, 2000)
    chains = [ANYWHERE[n:] for n in range(len(ANYWHERE))]
    assert_chains(p, [ANYWHERE, *((*FIRST, *chain) for chain in chains)])
    interrupted, places = Counter(), set()
    for frames, s in p.calls():
        names = [f.name for f in frames]
        if "on_first" in names:
            at = names.index("on_first") + 2
            assert is_return_from_handler(frames[at - 1])
            interrupted[names[at]] += s.ns
            places.add(frames[at].address)
    assert set(ANYWHERE) <= set(interrupted), interrupted
    assert len(places) >= 5, [hex(a) for a in places]


# --- Fibers

# Where a fiber starts there is no caller. A stack that ends there is whole, or says why it goes no further.
FIBER_REASONS = {None, "[no unwind info]", "[unknown stack]", "[truncated]"}


def assert_fibers(p, functions, is_beyond):
    """Stacks with one of `functions`, {function: what it is called by, down to the fiber's first function}, have all of
    these callers, and beyond these nothing of main's."""
    wrong, total = Counter(), 0
    for frames, s in p.calls():
        names = own(frames, p)
        if not names or names[0] not in functions:
            continue
        total += s.ns
        why = pprof.reason(s)
        names = names[:-1] if why else names
        chain = (names[0], *functions[names[0]])
        beyond = frames[len(frames) - (len(names) - len(chain)) - bool(why):len(frames) - bool(why)]
        if names[:len(chain)] != chain or len(beyond) > 3 or not all(map(is_beyond, beyond)) or \
                why not in FIBER_REASONS:
            wrong[(*names, why or "")] += s.count
    assert not wrong, show(wrong)
    assert total > 0.9 * p.ns


@pytest.mark.parametrize("way", ["mapped", "malloc", "thread"])
def test_fibers(out, way):
    """Two that take turns in the middle of their work: neither has frames of the other's, or of who made them."""
    p = profile([harness.program("fibers"), way, "600"], out)
    assert_fibers(p, {f"spin_{side}": (f"descend_{side}",) * 50 + (f"{side}_main",) for side in ("left", "right")},
                  lambda f: file_of(f).startswith("libc.so"))  # __start_context
    for side in ("left", "right"):
        assert p.cum()[f"spin_{side}"] == pytest.approx(600e6, rel=0.1)


def test_boost_fibers(out):
    if not (harness.PROGRAMS / "boost_fibers").exists():
        pytest.skip("no Boost.Context where this was built")
    p = profile([harness.program("boost_fibers"), "1000"], out)

    def is_beyond(f):
        return file_of(f).startswith("libboost_context") or "boost::context::" in f.name

    frames = "descend_on_fiber(int, boost::context::fiber)"
    assert_fibers(p, {"spin_on_fiber(unsigned long)": (frames,) * 50 + ("boost_main(boost::context::fiber)",)}, is_beyond)


# --- Code that is replaced by other code

def test_libraries_that_take_turns_at_one_address(out):
    """The same addresses with other frames, forty times: rules that were learned from the one are not the other's."""
    plain = [harness.program("reuse"), harness.program("reuse_a.so"), harness.program("reuse_b.so"), "20", "35"]
    tried = harness.run(plain)
    if tried.status == 77:
        pytest.fail("the two libraries never came to the same address: nothing is proven here")
    p = profile(plain, out)
    chains = [tuple(f"{stem}_{side}" for stem in ("spin", "four", "three", "two", "one", "work")) + ("work_once",)
              for side in "ab"]
    in_plugins = {name for chain in chains for name in chain[:-1]}
    wrong, total = Counter(), 0
    for frames, s in p.calls():
        names = own(frames, p)
        if not in_plugins & set(names):
            continue
        total += s.ns
        names = tuple(n for n in names if not re.fullmatch(r"reuse_[ab]\.so\+0x[0-9a-f]+", n))  # the linkage tables
        if not any(within(names, (*chain, "main")) for chain in chains) or not pprof.is_start(frames[-1]):
            wrong[tuple(f.name for f in frames)] += s.count
    assert not wrong, show(wrong)
    assert total > 0.9 * p.ns
    assert pprof.bracketed_share([p]) <= 0.005, pprof.bracketed_ns([p])


# --- Depth

def deep(p):
    """(frames, the reason or None, count) of all samples that were taken at the bottom."""
    for frames, s in p.calls():
        if frames and "spin_at_depth" in [f.name for f in frames[:4]]:
            why = pprof.reason(s)
            yield frames[:-1] if why else frames, why, s


@pytest.mark.parametrize("depth", [100, 1000, 5000])
def test_depth(out, depth):
    """No stack is too deep, be it beyond what can be copied in a moment."""
    p = profile([harness.program("depth"), depth, "1000"], out, hz=1000)
    found = Counter()
    for frames, why, s in deep(p):
        if why is None:
            assert [f.name for f in frames if f.name in ("main", "_start")] == ["main", "_start"]
            found[sum(f.name == "go_down" for f in frames)] += s.ns
    assert set(found) == {depth}, (found, pprof.bracketed_ns([p]))
    assert found[depth] > 0.95 * p.ns
    assert pprof.bracketed_share([p]) <= 0.005, pprof.bracketed_ns([p])


@pytest.mark.parametrize("limit", [1, 10, 500])
def test_limited_depth(out, limit):
    """The leaf's side is kept."""
    p = profile([harness.program("depth"), "1000", "500"], out, hz=1000, PROFILE_DEPTH=str(limit))
    found = Counter()
    whole = ["spin_at_depth", *["go_down"] * 1000]
    for frames, why, s in deep(p):
        names = [f.name for f in frames]
        assert names[names.index("spin_at_depth"):] == whole[:len(names) - names.index("spin_at_depth")]
        found[len(frames), why] += s.ns
    # A stack of one frame in a clock's function has no other to be known by.
    assert set(found) == {(limit, "[truncated]")}, found
    assert found[limit, "[truncated]"] > 0.9 * p.ns
    assert any(re.search(r"\[truncated\] [1-9]", c) for c in p.comments), p.comments


def test_depth_that_suffices(out):
    p = profile([harness.program("depth"), "100", "500"], out, hz=1000, PROFILE_DEPTH="200")
    assert {(sum(f.name == "go_down" for f in frames), why) for frames, why, _ in deep(p)} == {(100, None)}


# --- Exceptions

def test_exceptions_through_many_frames(out):
    """Thrown through one to twenty functions, each of a name of its own: none is left out, in the unwinder neither."""
    p = profile([harness.program("throwing"), "2000"], out, output=b"wrong 0\n")
    wrong, total, unwinder, most = Counter(), 0, 0, 0
    for frames, s in p.calls():
        names = tuple(f.name for f in frames)
        if pprof.reason(s) or "many::throw_for(unsigned long)" not in names:
            continue
        total += s.ns
        steps = [(i, int(m.group(1))) for i, m in enumerate(re.search(r"many::through<(\d+)>", n) for n in names) if m]
        good = pprof.is_start(frames[-1]) and names[names.index("many::throw_for(unsigned long)") + 1] == "main"
        if steps:
            first, number = steps[0]
            good = good and [n for _, n in steps] == list(range(number, number + len(steps)))
            good = good and [i for i, _ in steps] == list(range(first, first + len(steps)))
            good = good and ("catch_one" in names[steps[-1][0] + 1] or "throw_for" in names[steps[-1][0] + 1])
        if "many::raise_it(int)" in names:
            at = names.index("many::raise_it(int)")
            good = good and bool(steps) and steps[0] == (at + 1, 1)
            unwinder += s.ns if any(file_of(f).startswith("libgcc_s") for f in frames[:at]) else 0
            most = max(most, steps[-1][1] if steps else 0)
        if any(n.startswith("_Unwind_RaiseException") for n in names):
            good = good and "many::raise_it(int)" in names and "__cxa_throw" in names
        if not good:
            wrong[names] += s.count
    assert not wrong, show(wrong)
    assert most == 20 and unwinder > 0.3 * p.ns
    assert total > 0.97 * p.ns
    # While libgcc copies the registers of a landing pad over its own, no unwinder could go on.
    assert pprof.bracketed_share([p]) < 0.015, pprof.bracketed_ns([p])
