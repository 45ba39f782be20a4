"""Walks through frames that are hard to walk through: the profile has what is on the stack, all of it and nothing else.

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

# What any function may be found in: reading a clock, binding a function that is called for the first time, and libc's
# functions that the programs call once.
PASSING = re.compile(r"(__)?(vdso_)?clock_gettime|_dl_runtime_resolve.*|_dl_fixup|.*(set|long)jmp.*|(__)?get[pt]id|"
                     r"(__)?setitimer")


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
    """libc has no name for it; none of its other functions without one takes part here."""
    return frame.name == "__restore_rt" or \
        bool(file_of(frame).startswith("libc.so") and pprof.UNRESOLVED.search(frame.name))


def own(frames, p):
    """The names of a stack from its leaf to main, without what is called in passing."""
    names, passing = [], True
    for f in frames:
        if is_return_from_handler(f):
            names.append(SIGNAL)
            passing = True  # what it interrupted may be in passing, too
        elif not passing or not is_passing(f, p):
            names.append(f.name)
            passing = False
        if f.name == "main":
            break
    return tuple(names)


def within(names, chain):
    """Whether a stack is where this chain of calls can be: in one of its functions, with all its callers."""
    return 0 < len(names) <= len(chain) and chain[len(chain) - len(names):] == names


def is_part_of(names, chains):
    """Whether a stack that was broken off is right as far as it goes."""
    return any(within(names, c[:n]) for c in chains for n in range(len(names), len(c) + 1))


def show(stacks):
    """The most frequent of some stacks, {names: count}, as text."""
    def short(names):
        return " < ".join(names if len(names) <= 16 else (*names[:9], "...", *names[-6:]))
    return "\n".join(f"{n} {short(names)}" for names, n in Counter(stacks).most_common(8))


def profile(argv, out, hz=HZ, output=b"done\n", **env):
    """Runs a program and reads its profile. Few stacks are not whole: that is for the test to say whose."""
    r = harness.run(argv, profile=out, hz=hz, env=env)
    assert r.same == (0, output, b""), r
    return pprof.valid(out)


def assert_chains(p, chains, share=0.005):
    """Every stack with one of the program's functions is in one of the chains, which are leaf first and end below main,
    and goes on to where the program starts. One that is broken off is right as far as it goes, and there are few."""
    chains = [(*chain, "main") for chain in chains]
    known = {name for chain in chains for name in chain} - {"main"}
    main_file = os.path.basename(p.main_file)
    wrong, tails, other = Counter(), Counter(), 0
    for frames, s in p.calls():
        why = pprof.reason(s)
        frames = frames[:-1] if why else frames
        names = own(frames, p)
        if is_agent(frames):
            continue  # in a hook, which the program calls as it begins
        if not known & set(names):
            strangers = [f for f in frames if file_of(f) == main_file and f.name not in ("main", "_start")
                         and not is_plt(f, p)]
            if strangers:
                wrong[names] += s.count
            elif why != "[exec and exit]" and not (frames and pprof.is_start(frames[-1])):
                other += s.ns  # what begins and ends the program is whole; this lacks the rest
        elif why:
            if not is_part_of(names, chains):
                wrong[(*names, why)] += s.count
        elif any(within(names, c) for c in chains) and pprof.is_start(frames[-1]):
            tails[tuple(f.name for f in frames[[f.name for f in frames].index("main"):])] += s.count
        else:
            wrong[names] += s.count
    assert not wrong, show(wrong)
    assert_few_broken(p, share)
    assert other <= 0.02 * p.ns + 20e6, (other, p.ns)
    assert len(tails) == 1, tails


def assert_few_broken(p, share=0.005):
    """Hardly any stack is broken off. That the collector did not come round in time is nothing that a walker can help:
    other programs that want the processor have a say in it."""
    broken = pprof.bracketed_ns([p])
    full = broken.pop("[buffer full]", 0)
    assert sum(broken.values()) <= share * p.ns and full <= 0.1 * p.ns, (broken, full, p.ns)


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
    """Each function of a part was found at work, however seldom: otherwise nothing was proven of it."""
    wanted = {name for chain in ODD[part] for name in chain} - ONLY_CALLS
    total = odd.cum()[f"part_{part}"]
    assert total == pytest.approx(600e6, rel=0.15)
    found = leaf_time(odd, f"part_{part}")
    assert not {name for name in wanted if found[name] < 0.0005 * total}, found


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
    assert len(places) >= 8, [hex(a) for a in sorted(places)]


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
SET_UP = ("handle",)  # installs the handlers, and may meet a tick
FIRST = ("spin_in_first", "on_first", SIGNAL)
SECOND = ("spin_in_second", "on_second", SIGNAL)
ANYWHERE = ("anywhere_c", "anywhere_b", "anywhere_a", "interrupted_anywhere")


def signals(way, out, ms):
    return profile([harness.program("nested_signals"), way, ms], out)


# A copy has one stack: what a handler on another one interrupted is walked when its rules are known, a moment later.
LEARNED = {"normal": 0.005, "nested": 0.005, "anywhere": 0.005,
           "alternate": 0.05, "alternate_nested": 0.05, "anywhere_alternate": 0.05}


@pytest.mark.parametrize("way", ["normal", "alternate"])
def test_handlers(out, way):
    p = signals(way, out, 1000)
    assert_chains(p, [(*FIRST, *INTERRUPTED), SET_UP], LEARNED[way])
    assert p.cum()["interrupted"] > 0.85 * p.ns


@pytest.mark.parametrize("way", ["nested", "alternate_nested"])
def test_handlers_in_handlers(out, way):
    p = signals(way, out, 700)
    assert_chains(p, [(*FIRST, *INTERRUPTED), (*SECOND, "on_first", SIGNAL, *INTERRUPTED), SET_UP],
                  LEARNED[way])
    assert p.cum()["interrupted"] > 0.85 * p.ns
    assert p.cum()["on_second"] == pytest.approx(700e6, rel=0.15)


def test_handler_at_the_first_instruction(out):
    """What a signal interrupted is not one before its address, as what a call returns to is."""
    p = signals("first", out, 1000)
    assert_chains(p, [(*FIRST, "traps_at_first", "interrupted_at_first"), SET_UP])
    assert p.cum()["interrupted_at_first"] > 0.85 * p.ns


@pytest.mark.parametrize("way", ["anywhere", "anywhere_alternate"])
def test_handlers_anywhere(out, way):
    """Interrupted by a timer: in the middle of prologues and epilogues as well."""
    p = signals(way, out, 2000)
    chains = [ANYWHERE[n:] for n in range(len(ANYWHERE))]
    assert_chains(p, [ANYWHERE, SET_UP, *((*FIRST, *chain) for chain in chains)], LEARNED[way])
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
START_OF_FIBER = 4  # frames at most


def assert_fibers(p, functions, is_beyond):
    """Stacks with one of `functions`, {function: what it is called by, down to the fiber's first function}, have all of
    these callers. Beyond these are at most a few frames of the fiber's beginning, and none of main or of a thread. Code
    that is seen for the first time is cut there."""
    wrong, total, cut = Counter(), 0, 0
    for frames, s in p.calls():
        why = pprof.reason(s)
        frames = frames[:-1] if why else frames
        while frames and is_passing(frames[0], p):
            frames = frames[1:]
        names = tuple(f.name for f in frames)
        if not names or names[0] not in functions:
            continue
        if why == "[buffer full]":
            continue
        total += s.ns
        chain = (names[0], *functions[names[0]])
        if why == "[unknown stack]" and len(names) < len(chain) and names == chain[:len(names)]:
            cut += s.ns
            continue
        beyond = frames[len(chain):]
        if names[:len(chain)] != chain or len(beyond) > START_OF_FIBER or why not in FIBER_REASONS or \
                any(f.name == "main" or pprof.is_start(f) or not is_beyond(f) for f in beyond):
            wrong[(*names, why or "")] += s.count
    assert not wrong, show(wrong)
    assert total > 0.85 * p.ns and cut < 0.1 * p.ns


@pytest.mark.parametrize("way", ["mapped", "malloc", "thread"])
def test_fibers(out, way):
    """Two that take turns in the middle of their work: neither has frames of the other's, or of who made them."""
    p = profile([harness.program("fibers"), way, "600"], out)
    assert_fibers(p, {f"spin_{side}": (f"descend_{side}",) * 50 + (f"{side}_main",) for side in ("left", "right")},
                  lambda f: file_of(f).startswith("libc.so"))  # __start_context
    for side in ("left", "right"):
        assert p.cum()[f"spin_{side}"] == pytest.approx(600e6, rel=0.15)


def test_boost_fibers(out):
    if not (harness.PROGRAMS / "boost_fibers").exists():
        pytest.skip("no Boost.Context where this was built")
    p = profile([harness.program("boost_fibers"), "1000"], out)

    def is_beyond(f):
        return file_of(f).startswith("libboost_context") or "boost::context::" in f.name

    callers = ("descend_on_fiber(int, boost::context::fiber)",) * 50 + ("boost_main(boost::context::fiber)",)
    assert_fibers(p, {"spin_on_fiber(unsigned long)": callers}, is_beyond)


# --- Code that is replaced by other code


def libraries_in_turns(out, rounds, ms):
    """Two libraries at one address: the same instructions, other frames. Each works for so long in each round."""
    argv = [harness.program("reuse"), harness.program("reuse_a.so"), harness.program("reuse_b.so"), rounds, ms]
    if harness.run([*argv[:3], 2, 1]).status == 77:
        pytest.fail("the two libraries never came to the same address: nothing is proven here")
    p = profile(argv, out)
    stems = ("spin", "four", "three", "two", "one", "work")
    chains = [(*(f"{stem}_{side}" for stem in stems), "work_once", "main") for side in "ab"]
    in_libraries = {name for chain in chains for name in chain[:-2]}
    wrong, total = Counter(), 0
    for frames, s in p.calls():
        why = pprof.reason(s)
        frames = frames[:-1] if why else frames
        frames = [f for f in frames if not re.fullmatch(r"reuse_[ab]\.so\+0x[0-9a-f]+", f.name)]  # linkage tables
        names = own(frames, p)
        if in_libraries & set(names):
            total += s.ns
            whole = any(within(names, chain) for chain in chains) and pprof.is_start(frames[-1])
            if not whole and not (why and is_part_of(names, chains)):
                wrong[(*(f.name for f in frames), why or "")] += s.count
    assert not wrong, show(wrong)
    assert_few_broken(p)
    assert total > 0.85 * p.ns
    return p


def test_libraries_that_take_turns_at_one_address(out):
    """Forty times: rules that were learned from the one are not the other's."""
    libraries_in_turns(out, 20, 35)


def test_libraries_that_take_turns_slowly(out):
    """What is replaced is noticed within some 50 ms: beyond that each has its own name."""
    p = libraries_in_turns(out, 3, 300)
    for name in ("work_a", "work_b"):
        assert p.cum()[name] == pytest.approx(900e6, abs=350e6), name


# --- Depth

# A collector that has to walk a thousand frames for each sample can do so a few hundred times a second.
DEPTH_HZ = 250


def deep(p):
    """(frames, why it is not whole or None, sample) of what was taken at the bottom."""
    for frames, s in p.calls():
        why = pprof.reason(s)
        frames = frames[:-1] if why else frames
        if "spin_at_depth" in [f.name for f in frames[:4]]:
            yield frames, why, s


@pytest.mark.parametrize("depth", [100, 1000, 5000])
def test_depth(out, depth):
    """No stack is too deep, be it beyond the 256 KiB that a copy can have: the first ones of new code are cut there."""
    p = profile([harness.program("depth"), depth, "1000"], out, hz=DEPTH_HZ)
    found = Counter()
    for frames, why, s in deep(p):
        names = [f.name for f in frames]
        at = names.index("spin_at_depth")
        whole = names[at + 1:at + 1 + depth + 1] == [*["go_down"] * depth, "main"] and pprof.is_start(frames[-1])
        found["whole" if whole else why or " < ".join(names[-4:])] += s.ns
    assert set(found) <= {"whole", "[buffer full]", *(["[truncated]"] if depth == 5000 else [])}, found
    assert found["[truncated]"] < 0.1 * p.ns, (found, p.ns)
    assert found["whole"] > 0.8 * p.ns, (found, p.ns)


@pytest.mark.parametrize("limit", [1, 10, 500])
def test_limited_depth(out, limit):
    """The leaf's side is kept."""
    p = profile([harness.program("depth"), "1000", "1000"], out, hz=DEPTH_HZ, PROFILE_DEPTH=str(limit))
    found = Counter()
    for frames, why, s in deep(p):
        names = [f.name for f in frames]
        names = names[names.index("spin_at_depth"):]
        assert names == ["spin_at_depth", *["go_down"] * (len(names) - 1)]
        frames_in_kernel = s.frames[0].name == "[kernel]"
        found[len(frames) + (frames_in_kernel and len(frames) < limit), why] += s.ns
    assert set(found) - {key for key in found if key[1] == "[buffer full]"} == {(limit, "[truncated]")}, found
    # A stack of one frame, in a clock's function, does not tell whose it is.
    assert found[limit, "[truncated]"] > (0.5 if limit == 1 else 0.85) * p.ns
    assert any(re.search(r"\[truncated\] [1-9]", c) for c in p.comments), p.comments


def test_depth_that_suffices(out):
    p = profile([harness.program("depth"), "100", "1000"], out, hz=DEPTH_HZ, PROFILE_DEPTH="200")
    assert {sum(f.name == "go_down" for f in frames) for frames, why, _ in deep(p) if why is None} == {100}
    assert_few_broken(p)


# --- Exceptions

THROW_FOR = "many::throw_for(unsigned long)"
RAISE_IT = "many::raise_it(int)"


def is_whole_throw(frames):
    """Whether a stack below throw_for has all of its through<N>, up to the one that was called first, and if something
    is thrown, who throws it."""
    names = [f.name for f in frames]
    numbers = [int(m.group(1)) if m else None for m in (re.search(r"many::through<(\d+)>", n) for n in names)]
    steps = [i for i, n in enumerate(numbers) if n]
    if steps:
        first, last = steps[0], steps[-1]
        if numbers[first:last + 1] != list(range(numbers[first], numbers[first] + last - first + 1)):
            return False
        if not names[last + 1:] or ("many::catch_one<" not in names[last + 1] and names[last + 1] != THROW_FOR):
            return False
    if RAISE_IT in names and (not steps or names.index(RAISE_IT) != steps[0] - 1 or numbers[steps[0]] != 1):
        return False
    if "_Unwind_RaiseException" in names and names[names.index("_Unwind_RaiseException") + 1:][:2] != \
            ["__cxa_throw", RAISE_IT]:
        return False
    return THROW_FOR in names and names[names.index(THROW_FOR) + 1] == "main" and pprof.is_start(frames[-1])


def is_landing(frames):
    """Whether the leaf is where libgcc leaves for a landing pad. It copies that one's registers over those that it
    saved itself, and then no unwinder can go on, or it finds the place where it is going to."""
    files = [file_of(f) for f in frames]
    return any(files[n].startswith("libgcc_s") and all(f.startswith(("libgcc_s", "libc.so")) for f in files[:n]) and
               frames[n].name in ("_Unwind_Resume", "_Unwind_RaiseException") for n in range(min(3, len(files))))


def test_exceptions_through_many_frames(out):
    """Thrown through one to twenty functions, each of a name of its own: none is left out, in the unwinder neither."""
    p = profile([harness.program("throwing"), "2000"], out, output=b"wrong 0\n")
    wrong, whole, landing, unwinder, most = Counter(), 0, 0, 0, 0
    for frames, s in p.calls():
        names = tuple(f.name for f in frames)
        if not re.search("many::", " ".join(names)) or pprof.reason(s):
            continue
        if is_whole_throw(frames):
            whole += s.ns
            most = max(most, sum("many::through<" in n for n in names))
            unwinder += s.ns if RAISE_IT in names and file_of(frames[0]).startswith("libgcc_s") else 0
        elif is_landing(frames):
            landing += s.ns
        else:
            wrong[names] += s.count
    assert not wrong, show(wrong)
    assert_few_broken(p, 0.02)
    assert most == 20 and unwinder > 0.2 * p.ns, (most, unwinder, p.ns)
    assert landing < 0.1 * p.ns and whole > 0.8 * p.ns, (landing, whole, p.ns)


# --- What is learned once


def walked(p):
    """Frames that were walked by rules, by libunwind, and of the latter those without a rule."""
    m = re.search(r"walk: (\d+) frames by rules, (\d+) by libunwind, (\d+) of them without a rule", "\n".join(p.comments))
    return [int(n) for n in m.groups()]


def test_a_child_knows_what_others_learned(out):
    """Programs that are started one after the other: only the first one has much to learn. (The shell that starts them
    shares libc with them, and none of what is theirs.)"""
    code = "import json, re, time\n" \
           "while time.process_time() < 0.3: re.sub('a+', 'b', json.dumps(json.loads('[1, {\"a\": 2}]')))\n"
    r = harness.run(["/bin/sh", "-c", 'for i in 1 2 3 4; do "$0" -c "$1"; done', harness.PYTHON, code], profile=out,
                    hz=4000)
    assert r.same == (0, b"", b""), r
    harness.wait_until(lambda: len(list(out.parent.glob("*.pb.gz"))) >= 5, 20)
    children = sorted((pprof.valid(path) for path in out.parent.glob("*.pb.gz") if path != out),
                      key=lambda p: p.pb.time_nanos)
    children = [p for p in children if p.ns > 200e6]
    assert len(children) == 4
    learned = [walked(p)[2] for p in children]
    assert learned[0] > 20 and sum(learned[1:]) < learned[0], learned
