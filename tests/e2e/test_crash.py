"""PROFILE_CRASH: a program that dies says where every thread was, and ends as it would have ended."""

import functools
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

import harness
import pprof

HEAD = re.compile(r"stile: crash report of process (\d+) \((.+)\): (SIG\w+)(.*)")
THREAD = re.compile(r'thread (\d+) "(.*)" (.+?):?')
FRAME = re.compile(r"  #(\d+) (0x[0-9a-f]+)(?: (\S.*)\+(0x[0-9a-f]+))?(?: \((.+)\+(0x[0-9a-f]+)\))?")
END = "stile: end of the report"


class Thread:
    def __init__(self, tid, name, state):
        self.tid, self.name, self.state, self.frames = tid, name, state, []

    @property
    def names(self):
        """The functions that the report names by itself."""
        return [f[5] for f in self.frames]

    @property
    def offsets(self):
        """(file, offset) of each frame that lies in a file."""
        return [(f[3], f[4]) for f in self.frames if f[3]]


class Report:
    """One report, as text. Whole or an error."""

    def __init__(self, text):
        self.lines = text.splitlines()
        self.pid, self.comm, self.signal, self.rest = HEAD.fullmatch(self.lines[0]).groups()
        assert END in self.lines, text[-2000:]
        self.threads = []
        for line in self.lines[:self.lines.index(END)]:
            thread, frame = THREAD.fullmatch(line), FRAME.fullmatch(line)
            if thread:
                self.threads.append(Thread(*thread.groups()))
            elif frame:
                self.threads[-1].frames.append(frame)
        assert self.threads and self.threads[0].state == "crashed", text

    def line(self, key):
        found = [x for x in self.lines if x.startswith(f"{key}: ")]
        return found[0] if found else None


def reports(data):
    """All reports in an output."""
    text = data.decode(errors="replace")
    return [Report(text[m.start():]) for m in re.finditer(r"^stile: crash report of process ", text, re.M)]


def report(data):
    found = reports(data)
    assert len(found) == 1, data.decode(errors="replace")[-3000:]
    return found[0]


@functools.cache
def functions_at(path, offset):
    told = subprocess.run([harness.tool("addr2line"), "-f", "-i", "-e", path, offset], capture_output=True, text=True,
                          timeout=60, check=True)
    return told.stdout.splitlines()[::2]


def functions(frames):
    """The functions that debug information has for (file, offset), each with what is inlined there."""
    return [name for frame in frames for name in functions_at(*frame)]


def crash(kind, folder, env=None, **options):
    path = folder / "report.txt"
    env = {"LD_PRELOAD": harness.LIBRARY, "PROFILE_CRASH": path, **(env or {})}
    r = harness.run([harness.program("crashing"), kind], env=env, cwd=folder, timeout=120, **options)
    r.file = path.read_bytes() if path.exists() else b""
    return r


def plain(kind, folder, **options):
    return harness.run([harness.program("crashing"), kind], cwd=folder, timeout=120, **options)


KINDS = {
    "access": (signal.SIGSEGV, "SEGV_MAPERR) at 0x10", "bad_access"),
    "call": (signal.SIGSEGV, "SEGV_MAPERR) at 0x0", "bad_call"),
    "bus": (signal.SIGBUS, "BUS_ADRERR) at 0x", "bus"),
    "illegal": (signal.SIGILL, "ILL_ILLOPN) at 0x", "illegal"),
    "divide": (signal.SIGFPE, "FPE_INTDIV) at 0x", "divide"),
    "trap": (signal.SIGTRAP, "", "breakpoint"),
    "sys": (signal.SIGSYS, "SI_TKILL)", "forbidden"),
    "abort": (signal.SIGABRT, "SI_TKILL)", None),
    "malloc": (signal.SIGABRT, "SI_TKILL)", "in_malloc"),
    "handler": (signal.SIGSEGV, "SEGV_MAPERR) at 0x10", "on_signal"),
    "overflow": (signal.SIGSEGV, "at 0x", "deeper"),
    "overflow-thread": (signal.SIGSEGV, "at 0x", "deeper"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(tmp_path, kind):
    """The report, on both outputs, and the end as without it."""
    number, rest, function = KINDS[kind]
    r, without = crash(kind, tmp_path), plain(kind, tmp_path)
    assert r.status == without.status == -number, r
    assert r.out == without.out
    if kind == "malloc":
        assert without.err in r.err, r
    assert r.err.startswith(b"before\n") and b"before\n" not in r.file
    told = report(r.file)
    assert report(r.err).lines == told.lines
    assert told.signal == number.name and rest in told.rest, told.lines[0]
    assert told.comm == "crashing" and int(told.pid) == int(told.threads[0].tid) or kind == "overflow-thread"
    stack = functions(told.threads[0].offsets[:60] + told.threads[0].offsets[-10:])
    if function is not None:
        assert function in stack, stack
    assert "main" in stack or kind == "overflow-thread", stack


def test_exported_names(tmp_path):
    """What a function exports is named without any help, and nothing beyond its size."""
    told = report(crash("access", tmp_path).file)
    names = told.threads[0].names
    assert names[0] == "crash_here" and names[1] is None, names
    assert told.line("mapping").startswith("mapping: none")
    assert "PROFILE" not in told.line("command")


def test_in_the_loader(tmp_path):
    r = crash("loader", tmp_path, env={"CRASHING_PLUGIN": harness.program("crashing_plugin.so")})
    assert r.status == -signal.SIGSEGV, r
    told = report(r.file)
    assert "plugin_loaded" in functions(told.threads[0].offsets), told.lines
    assert any("crashing_plugin.so" in line for line in told.lines)


def test_two_at_once(tmp_path):
    """The first one reports; the second one is in the report, or comes too late for it."""
    for _ in range(5):
        r = crash("two", tmp_path)
        assert r.status == -signal.SIGSEGV, r
        told = reports(r.file)[-1]
        assert len(told.threads) == 3
        assert sum("crash_unnamed" in functions(t.offsets[:3]) for t in told.threads) >= 1
        (tmp_path / "report.txt").unlink()


def test_child(tmp_path):
    r = crash("child", tmp_path)
    assert r.status == 0 and r.out == b"child: 11\n", r
    told = report(r.file)
    assert "bad_access" in functions(told.threads[0].offsets)


def test_vfork_child(tmp_path):
    """It is not reported; the parent's own crash is."""
    r = crash("vfork", tmp_path)
    assert r.status == -signal.SIGSEGV and r.out == b"child: 11\n", r
    told = report(r.file)
    assert "bad_access" in functions(told.threads[0].offsets)


def test_stderr_closed(tmp_path):
    r = crash("closed", tmp_path)
    assert r.status == -signal.SIGSEGV and r.err == b"before\n", r
    report(r.file)


def test_data_is_not_touched(tmp_path):
    """A file that the program opened as descriptor 2 gets nothing of ours."""
    r = crash("reopened", tmp_path)
    assert r.status == -signal.SIGSEGV and r.err == b"before\n", r
    assert (tmp_path / "data").read_bytes() == b""
    report(r.file)


def test_pipe_that_nobody_reads(tmp_path):
    reader, writer = os.pipe()
    try:
        r = crash("access", tmp_path, stderr=writer)
        assert r.status == -signal.SIGSEGV, r
        report(r.file)
    finally:
        os.close(reader)
        os.close(writer)


def test_full_pipe(tmp_path):
    """The report waits for room, but not for ever, and is whole where it can be."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    try:
        r = crash("access", tmp_path, stderr=writer, env={"CRASHING_SILENT": "1"})
        assert r.status == -signal.SIGSEGV and r.seconds < 60, r
        report(r.file)
    finally:
        os.close(reader)
        os.close(writer)


def test_handlers_of_the_program(tmp_path):
    """It sees what it set; its handler comes after the report, with what the kernel said."""
    r, without = crash("own-handler", tmp_path), plain("own-handler", tmp_path)
    assert r.status == without.status == 7 and r.out == without.out and r.out.endswith(b"\nmine: 11 1 0x10\n"), r
    report(r.file)


def test_handler_that_raises_again(tmp_path):
    r, without = crash("raising", tmp_path), plain("raising", tmp_path)
    assert r.status == without.status == -signal.SIGSEGV and r.out == without.out == b"mine\n", r
    report(r.file)


def test_program_that_goes_on(tmp_path):
    """What it handles is reported once."""
    r, without = crash("survived", tmp_path), plain("survived", tmp_path)
    assert r.status == without.status == 0 and r.out == without.out == b"survived: 11\n", r
    report(r.file)


def test_crash_after_one_that_was_handled(tmp_path):
    r, without = crash("survived-once", tmp_path), plain("survived-once", tmp_path)
    assert r.status == without.status == -signal.SIGSEGV and r.out == without.out, r
    told = reports(r.file)
    assert len(told) == 2
    assert "crash_run" in functions(told[1].threads[0].offsets)


def test_crash_after_one_that_was_jumped_out_of(tmp_path):
    """In the same thread, and deeper: it is no second signal of the first one's handler."""
    r, without = crash("survived-in-place", tmp_path), plain("survived-in-place", tmp_path)
    assert r.status == without.status == -signal.SIGSEGV, r
    told = reports(r.file)
    assert len(told) == 2
    assert functions(told[1].threads[0].offsets).count("crash_deeper") >= 5


@pytest.mark.parametrize("kind", ["let-in", "filtered", "bare-child"])
def test_signal_is_passed_on(tmp_path, kind):
    """Where the kernel would drop it, hold it back, or give a child another action than its parent's."""
    r, without = crash(kind, tmp_path), plain(kind, tmp_path)
    assert (r.status, r.out) == (without.status, without.out) and b"went on" not in r.out, r


@pytest.mark.parametrize("kind", ["trap", "access"])
def test_first_process(tmp_path, kind):
    """Of a container: it does not die of what is sent."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-pf", "--mount-proc", "true"], capture_output=True).returncode != 0:
        pytest.skip("namespaces cannot be had")
    command = [unshare, "-pf", "--mount-proc", "sh", "-c", 'LD_PRELOAD="$1" PROFILE_CRASH=report.txt exec "$2" "$3"', "sh"]
    told, without = (harness.run([*command, library, harness.program("crashing"), kind], cwd=tmp_path, timeout=60)
                     for library in (harness.LIBRARY, ""))
    assert told.status == without.status != 0, told
    report((tmp_path / "report.txt").read_bytes())


def test_thousands_of_threads(tmp_path):
    """One that never answers makes nobody wait for longer than a few seconds."""
    r = crash("thousands", tmp_path)
    if r.status == 98:
        pytest.skip("so many threads are not to be had")
    assert r.status == -signal.SIGSEGV and r.seconds < 30, r
    told = report(r.file)
    assert len(told.threads) == 2001 and told.line("threads") == "threads: 2001, of which 1 did not answer"


def test_fault_of_the_report(tmp_path):
    """The stack goes while it is walked: the report says where it ends, and the program ends as it would have."""
    for _ in range(60):  # it goes at the right moment in one of five
        (tmp_path / "report.txt").unlink(missing_ok=True)
        r = crash("vanishing", tmp_path)
        assert r.status == -signal.SIGSEGV, r
        if b"stile: the report ends here: " in r.file:
            return
        assert END.encode() in r.file, r.file[-500:]
    pytest.fail("the stack was there each time")


def test_signals_while_it_reports(tmp_path):
    """They come after the report, and cut nothing short."""
    path = tmp_path / "report.txt"
    env = {**os.environ, "LD_PRELOAD": str(harness.LIBRARY), "PROFILE_CRASH": str(path)}
    p = subprocess.Popen([harness.program("crashing"), "long"], env=env, cwd=tmp_path, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    end = time.monotonic() + 60
    while p.poll() is None and time.monotonic() < end:
        p.send_signal(signal.SIGSEGV)
        time.sleep(0.001)
    assert p.wait(1) == -signal.SIGSEGV
    told = report(path.read_bytes())
    assert "ends here" not in "".join(told.lines)


@pytest.mark.parametrize("kind", ["ignored", "untouched"])
def test_what_the_program_sees(tmp_path, kind):
    r, without = crash(kind, tmp_path), plain(kind, tmp_path)
    assert r.same == without.same and r.file == b"", r


def test_output_set(tmp_path):
    """Both outputs have the report and the function that crashed; what was printed before is on one."""
    env = {"PROFILE_CRASH": "fd:2"}
    r = crash("output", tmp_path, env=env)
    assert r.status == -signal.SIGSEGV and r.out == b"set: 0 -9 -9\n", r
    file = (tmp_path / "crash.txt").read_bytes()
    for told in report(r.err), report(file):
        assert told.threads[0].names[0] == "crash_here"
    assert b"after it was set\n" in r.err and b"after it was set" not in file and b"before" not in file


@pytest.mark.parametrize("kind", ["profiled", "profiled-and-set"])
def test_output_stays_through_a_profile(tmp_path, kind):
    """A profile that the program starts and stops changes nothing about where reports go, and takes no other descriptor."""
    with open(tmp_path / "in", "w+b") as stdin:
        r = crash(kind, tmp_path, stdin=stdin)
    assert r.status == -signal.SIGSEGV and r.out == b"0 0\n", r
    own = tmp_path / "crash.txt"
    told, other = (own.read_bytes(), r.file) if kind == "profiled-and-set" else (r.file, b"")
    assert report(told).threads[0].names[0] == "crash_here" and other == b""
    assert "stile: end of the names" in report(told).lines
    assert (tmp_path / "in").read_bytes() == b""


def test_output_off(tmp_path):
    r = crash("output-off", tmp_path)
    assert r.status == -signal.SIGSEGV
    report(r.err)
    assert r.file == b"" and (tmp_path / "crash.txt").read_bytes() == b""


def test_enable(tmp_path):
    r = harness.run([harness.program("crashing"), "enable"], env={"LD_PRELOAD": harness.LIBRARY}, cwd=tmp_path, timeout=60)
    assert r.status == -signal.SIGSEGV and r.out == b"enable: 0 0\nset: 0 -9 -9\n", r
    assert report(r.err).threads[0].names[0] == "crash_here"
    assert report((tmp_path / "crash.txt").read_bytes()).threads[0].names[0] == "crash_here"


def test_monitor(tmp_path):
    """A child that watches gets the whole report and the end of file."""
    r = crash("monitor", tmp_path)
    assert r.status == -signal.SIGSEGV, r
    path = tmp_path / "monitor.txt"
    assert harness.wait_until(lambda: path.exists() and path.read_bytes().endswith(b"\nend\n"), 30), path.read_bytes()
    assert report(path.read_bytes()).threads[0].names[0] == "crash_here"


def test_fd(tmp_path):
    """PROFILE_CRASH=fd:N, of a descriptor that the program inherits."""
    with open(tmp_path / "inherited", "wb") as f:
        r = crash("access", tmp_path, env={"PROFILE_CRASH": f"fd:{f.fileno()}"}, pass_fds=[f.fileno()])
    assert r.status == -signal.SIGSEGV
    report((tmp_path / "inherited").read_bytes())


@pytest.mark.parametrize("value,words", [
    ("fd:x", "is no file descriptor"), ("fd:700", "Bad file descriptor"), ("{dir}/no/such/file", "No such file"),
    ("{dir}/link", "symbolic link"), ("{dir}", "Is a directory")])
def test_bad_values(tmp_path, value, words):
    """One line; the program runs."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    r = crash("ignored", tmp_path, env={"PROFILE_CRASH": value.format(dir=tmp_path)})
    assert r.status == 0 and r.out == b"ignored\n", r
    first, line = harness.lines(r.err)
    assert sorted((first, line))[0] == "before" and words in r.err.decode(), r
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("freeze", [True, False])
def test_many_threads(tmp_path, freeze):
    """200 threads: half in system calls, a quarter in malloc. All are in the report, in time."""
    env = {"PROFILE_DEBUG": harness.debug(f"dontfreezetheworld={0 if freeze else 1}")}
    r = crash("many", tmp_path, env=env)
    assert r.status == -signal.SIGSEGV, r
    told = report(r.file)
    assert len(told.threads) == 200
    others = told.threads[1:]
    readers = [t for t in others if t.name == "reader"]
    assert len(readers) == 99
    for t in readers:
        assert "read_for_ever" in functions(t.offsets[:3]), (t.state, t.frames)
        assert t.state == ("stopped" if freeze else "waiting (read), what it left")
    running = [t for t in others if t.name != "reader"]
    if freeze:
        assert all(t.state == "stopped" and t.frames for t in running)
        inner = {f for t in running for f in functions(t.offsets[-3:-2])}
        assert inner == {"allocate_for_ever", "count_for_ever"}, inner
        assert told.line("threads") == "threads: 200"
    else:
        assert all("skipped: its stack is its own" in t.state and not t.frames for t in running)
        assert told.line("threads") == "threads: 200, of which 199 were not stopped"


THROWN = {
    "thrown": ("shop::out_of_stock", "no more bolts"), "noexcept": ("shop::out_of_stock", "no more bolts"),
    "thread": ("shop::out_of_stock", "no more bolts"), "int": ("int", None), "terminate": (None, None),
    "joinable": (None, None),
}


@pytest.mark.parametrize("kind", THROWN)
def test_exceptions(tmp_path, kind):
    name, what = THROWN[kind]
    path = tmp_path / "report.txt"
    r = harness.run([harness.program("crashing_throw"), kind], timeout=60,
                    env={"LD_PRELOAD": harness.LIBRARY, "PROFILE_CRASH": path})
    assert r.status == -signal.SIGABRT, r
    told = report(path.read_bytes())
    line = told.line("exception")
    if name is None:
        assert line == "exception: none that is known; std::terminate was called"
        return
    mangled = line.split(": ")[1]
    demangled = subprocess.run([harness.tool("c++filt"), "-t", mangled], capture_output=True, text=True, check=True)
    assert demangled.stdout.strip() == name
    assert line == (f"exception: {mangled}" if what is None else f"exception: {mangled}: {what}")


def test_core(tmp_path):
    """A core is dumped if it was asked for, and has the registers of the crash."""
    pattern = open("/proc/sys/kernel/core_pattern").read().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"cores go to {pattern}")
    limit = resource.RLIM_INFINITY
    r = crash("access", tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)))
    assert r.status == -signal.SIGSEGV
    cores = list(tmp_path.glob("core*"))
    assert len(cores) == 1, os.listdir(tmp_path)
    gdb = subprocess.run([harness.tool("gdb"), "-batch", "-ex", "bt", harness.program("crashing"), cores[0]],
                         capture_output=True, text=True, timeout=60, check=True, env=harness.clean_environment())
    assert re.search(r"#0 .*crash_here", gdb.stdout) and "main" in gdb.stdout, gdb.stdout


def test_swapping(tmp_path):
    """One thread exchanges the output all the time, another one crashes."""
    (tmp_path / "foreign").touch()
    for _ in range(40):
        r = crash("swapping", tmp_path, env={"PROFILE_CRASH": "fd:2"})
        assert r.status == -signal.SIGSEGV, r
        files = [(tmp_path / name).read_bytes() for name in "ab"]
        assert sorted(len(f) > 0 for f in files) == [False, True], [len(f) for f in files]
        report(files[0] or files[1])
        assert (tmp_path / "foreign").read_bytes() == b""
        for name in ["a", "b"]:
            (tmp_path / name).unlink()


def test_profile_is_kept(tmp_path, out):
    """A crash signal at any moment: a report, the status, and the profile up to then."""
    for i in range(8):
        path = out.with_name(f"{i}.pb.gz")
        with harness.Program([harness.program("crashing"), "long"], profile=path, hz=1000, cwd=tmp_path,
                             env={"PROFILE_CRASH": tmp_path / f"{i}.txt"}) as p:
            p.wait_output("ready")
            time.sleep(0.2 + 0.037 * i)
            p.signal([signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTRAP][i % 4])
            r = p.wait(60)
        assert r.status == -[signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGTRAP][i % 4], r
        told = report((tmp_path / f"{i}.txt").read_bytes())
        assert len(told.threads) == 3 and all(t.frames for t in told.threads)
        profile = pprof.valid(path)
        assert profile.cum()["count_for_ever"] > 20e6
