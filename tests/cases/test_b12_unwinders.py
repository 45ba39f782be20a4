"""B12: whoever unwinds walks through barriers: in the program, in its signal handlers, and from outside."""

import re
import subprocess

import pytest

import harness
import under_barriers

WALKS = [(p, h) for p in ("walking", "walking_static", "walking_llvm", "walking_nongnu") for h in ("backtrace", "unwind")]
WALKS += [("walking_nongnu", "unw_step"), ("walking_nongnu", "unw_backtrace")]
LIBRARIES = {"walking": "libgcc_s.so.1", "walking_llvm": "libunwind.so.1", "walking_nongnu": "libunwind.so.8"}

DEEP = ["bottom"] + 6 * ["seven"] + ["six", "five", "four", "three", "two", "one"]
OWN = set(DEEP) | {"look", "returning", "trapped", "handler_one", "handler_two", "main", "_start", "thread_main"}
STUB = "stile__stub_pool"


def barred():
    return {"LD_PRELOAD": harness.program("libbarring.so"), "DEBUGINFOD_URLS": ""}


def own(names):
    """Those of the program's own functions that tell the order."""
    return [n for n in names if n in OWN]


@pytest.mark.parametrize("where", ["main", "thread", "handler", "alternate"])
@pytest.mark.parametrize("name,how", WALKS)
def test_from_inside(name, how, where):
    r = harness.run([harness.program(name), how, where], env=barred(), timeout=20)
    assert r.status == 0, r
    first, *frames, last = harness.lines(r.out)
    assert re.split("[ /]", first)[-1] == LIBRARIES.get(name, "?")
    assert last == "same, stubs 0, then all"
    names = own(f.split()[0] for f in frames)
    begin = ["look"] if where in ("main", "thread") else ["look", "handler_two", "handler_one"]
    assert names[:len(begin) + len(DEEP)] == begin + DEEP
    assert names[len(begin) + len(DEEP):] == (["thread_main"] if where == "thread" else ["_start"])
    if where == "thread":
        assert [f.split()[-1] for f in frames[-2:]] == ["libc.so.6", "libc.so.6"]  # start_thread and clone3


@pytest.mark.parametrize("name,how", WALKS)
def test_from_a_signal_inside_a_stub(name, how):
    r = harness.run([harness.program(name), how, "stub"], env=barred(), timeout=20)
    assert r.status == 0, r
    parts = re.search(r"(?sm)^stub\+0: (.*)^stub\+7: (.*)", r.out.decode())
    assert parts, r
    for part in parts.groups():
        verdict, *frames = part.splitlines()
        assert verdict == "same, all stubs"
        assert own(f.split()[0] for f in frames) == ["trapped", "look"] + DEEP + ["_start"]


class Stopped(harness.Program):
    """A program that waits with a barrier on each frame, or (bare) with none."""

    def __init__(self, where, bare=False):
        super().__init__([harness.program("walking"), "outside", where], env={} if bare else barred())
        self.wait_output("go" if where == "stub" else "ready")
        self.stub, self.go = (re.search(r"stub (\S+) go (\S+)", self.out.decode()).groups()
                              if where == "stub" else (None, None))


def ask(*argv):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60, check=False,
                       stdin=subprocess.DEVNULL, env={**harness.clean_environment(), "DEBUGINFOD_URLS": ""})
    assert r.returncode == 0, r
    return r.stdout


def gdb(*commands, core=None, pid=None):
    argv = []
    for c in ("set height 0", "set width 0", "set backtrace past-main on", "set backtrace past-entry on", *commands):
        argv += ["-ex", c]
    target = [harness.program("walking"), core] if core else ["-p", pid]
    return ask(harness.tool("gdb"), "-nx", "-batch", *target, *argv)


def frames_of(text):
    """The functions of gdb's frames."""
    return re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+) \(", text, re.M)


def check(names, reference, end):
    """The same frames as without barriers, with stubs between them."""
    assert names.count(STUB) > 15, names
    left = [n for n in names if n != STUB]
    # gdb adds frames of tail calls where it knows the call, which a stub hides from it.
    assert left == [n for n in reference if n in left] and len(left) >= len(reference) - 1
    assert own(left)[:len(DEEP) + 1] == ["look"] + DEEP and own(left)[len(DEEP) + 1:] == end


@pytest.mark.parametrize("where", ["main", "thread"])
def test_from_outside(where, tmp_path):
    """libdw and gdb live, and gdb with a core."""
    found = {}
    for bare in (True, False):
        with Stopped(where, bare) as app:
            core = tmp_path / f"core{bare}"
            live = gdb("thread apply all bt", f"generate-core-file {core}", pid=app.pid)
            libdw = ask(harness.program("outsider"), app.pid)
        dead = gdb("thread apply all bt", core=core)
        pick = 1 if where == "thread" else 0
        stacks = [re.split(r"^Thread ", t, flags=re.M)[1:] for t in (live, dead)]
        stacks = [frames_of(next(s for s in some if " bottom (" in s)) for some in stacks]
        found[bare] = [*stacks, libdw.split("thread\n")[1:][pick].split()]
    for names, reference in zip(found[False], found[True]):
        check(names, reference, ["thread_main"] if where == "thread" else ["main", "_start"])


def test_gdb_stopped_inside_a_stub():
    with Stopped("stub") as app:
        text = gdb(f"set var *(int *){app.go} = 1", f"tbreak *{app.stub}", "continue", "bt", "stepi", "bt", pid=app.pid)
    parts = re.split(r"^(?=#0 )", text, flags=re.M)
    stacks = [frames_of(p) for p in parts if len(frames_of(p)) > 5]
    assert len(stacks) == 2, text
    for names in stacks:
        assert names[0] == STUB and names.count(STUB) > 15
        assert own(names) == ["look"] + DEEP + ["main", "_start"]


def test_libdw_stopped_inside_a_stub():
    with Stopped("stub") as app:
        text = ask(harness.program("outsider"), app.pid, app.stub, app.go)
    assert re.findall(r"^stub\+\d+", text, re.M) == ["stub+0", "stub+7"]
    for part in re.split(r"^stub\+\d+\nthread\n", text, flags=re.M)[1:]:
        names = part.split()
        assert names[0] == STUB and names.count(STUB) > 15, names
        assert own(names) == ["look"] + DEEP + ["main", "_start"]


@under_barriers.modes
def test_where_samples_place_them(out, mode):
    """The program's own backtraces, in threads and in handlers of theirs, as samples come and go."""
    p = under_barriers.run([harness.program("backtraces"), "2"], out, mode)
    told = under_barriers.assert_used(p, mode)
    assert told["placed"] > 0, told
