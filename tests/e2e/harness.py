"""What the end-to-end tests share: where things are, running programs, waiting for files.

Everything that a test starts carries a mark in its environment, so that what it leaves behind is found, whoever
has become its parent. The collector keeps little of its program's environment; XDG_RUNTIME_DIR it does.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("STILE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("STILE_BUILD_DIR", SOURCE / "build")).resolve()
STILE = BUILD / "bin" / "stile"
LIBRARY = BUILD / "lib" / "libstile.so"
PROGRAMS = BUILD / "tests" / "e2e" / "programs"
PYTHON = "/usr/bin/python3"

MARK = "XDG_RUNTIME_DIR"
CHECKS = "checkstackownership=1"  # in all that a test starts: who reads a stack proves that it is his
DEFAULT_HZ = 100
SETTING = {}  # what every profiled program has in its environment unless its test says otherwise
FILE_WAIT = 10  # seconds within which the file of a killed program has to be there

# The kernel's tick: the highest rate of CPU-time timers.
TICK_HZ = round(1 / time.clock_getres(getattr(time, "CLOCK_MONOTONIC_COARSE", 6)))


def program(name):
    """The path of a test program as text."""
    path = PROGRAMS / name
    assert path.exists(), f"{path} is not built"
    return str(path)


def tool(name):
    """The path of a program of the system, which the claims are about: without it they are not proven."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"this test needs {name}, which is not installed")
    return path


def clean_environment():
    """Our environment without anything that could start or change a profile. Stacks' ownership is checked in any."""
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith(("PROFILE", "STILE_")) and k != "LD_PRELOAD"}
    return {**clean, "PROFILE_DEBUG": CHECKS}


def debug(*pairs):
    """PROFILE_DEBUG with these key=value pairs, and what every test has."""
    return ",".join([CHECKS, *pairs])


def profile_environment(path, hz=None):
    """What a user sets to profile a program: the file, the library, and perhaps a rate."""
    env = {"PROFILE": str(path), "LD_PRELOAD": str(LIBRARY), "PROFILE_DEBUG": CHECKS, **SETTING}
    if hz is not None:
        env["PROFILE_HZ"] = str(hz)
    return env


def assignments(env):
    """The variables as arguments of env(1)."""
    return [f"{k}={v}" for k, v in env.items()]


class Result:
    """How a program ended."""

    def __init__(self, status, out, err, cpu_ns, seconds):
        self.status = status  # as subprocess has it: exit status, or minus the signal
        self.out = out
        self.err = err
        self.cpu_ns = cpu_ns  # of the process and the children that it waited for
        self.seconds = seconds

    @property
    def same(self):
        """What has to be the same with and without a profile."""
        return self.status, self.out, self.err

    def __repr__(self):
        return f"status {self.status}, {self.seconds:.2f} s, out {self.out[-2000:]!r}, err {self.err[-2000:]!r}"


class Program:
    """A running program whose output goes to files. As a context manager it is gone at the end, by its pid.
    unchecked: nobody proves that stacks are his."""

    def __init__(self, argv, profile=None, hz=None, env=None, stdin=None, stdout=None, stderr=None,
                 unchecked=False, **popen):
        self.dir = Path(tempfile.mkdtemp(prefix="stile-e2e-"))
        self.out_path = self.dir / "out"
        self.err_path = self.dir / "err"
        environment = clean_environment()
        if profile is not None:
            environment.update(profile_environment(profile, hz))
        environment.update({k: str(v) for k, v in (env or {}).items()})
        if unchecked:
            del environment["PROFILE_DEBUG"]
        else:
            assert CHECKS in environment["PROFILE_DEBUG"].split(","), "harness.debug() joins what is checked"
        if isinstance(stdin, bytes):
            (self.dir / "in").write_bytes(stdin)
            stdin = open(self.dir / "in", "rb")
        popen.setdefault("start_new_session", True)
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [str(a) for a in argv], env=environment,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=out if stdout is None else stdout, stderr=err if stderr is None else stderr, **popen)
        if hasattr(stdin, "close"):
            stdin.close()
        self.pid = self.process.pid
        self.result = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.result is None:
            self.kill()
        if self.process.stdin:
            self.process.stdin.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def out(self):
        return self.out_path.read_bytes()

    @property
    def err(self):
        return self.err_path.read_bytes()

    def poll(self):
        """The result, or None while it runs."""
        if self.result is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid != 0:
                seconds = time.monotonic() - self.started
                self.process.returncode = os.waitstatus_to_exitcode(status)
                cpu_ns = round((usage.ru_utime + usage.ru_stime) * 1e9)
                self.result = Result(self.process.returncode, self.out, self.err, cpu_ns, seconds)
        return self.result

    def wait(self, timeout=300):
        """The result; a program that does not end in time is killed, and that is a failure."""
        result = wait_until(self.poll, timeout)
        if result is None:
            self.kill()
            pytest.fail(f"{self.process.args} did not end within {timeout} s; "
                        f"out {self.out[-500:]!r}, err {self.err[-500:]!r}")
        return result

    def wait_output(self, text, timeout=60):
        """Waits until the program has said `text` on its standard output."""
        text = text if isinstance(text, bytes) else text.encode()
        if wait_until(lambda: text in self.out or self.poll(), timeout) is None or text not in self.out:
            pytest.fail(f"{self.process.args} did not say {text!r}; out {self.out[-500:]!r}, err {self.err[-500:]!r}")

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """Ends it, and what it has in its process group, if that is its own."""
        try:
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        wait_until(self.poll, 10)


def run(argv, timeout=300, **options):
    """Runs a program to its end."""
    with Program(argv, **options) as p:
        return p.wait(timeout)


def wait_until(condition, timeout, interval=0.005):
    """The first true value of condition(), or None after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            return None
        time.sleep(interval)
        interval = min(interval * 1.5, 0.1)


def wait_for_file(path, timeout=FILE_WAIT):
    """Waits for a profile. It is renamed into place when it is complete, so to exist is to be whole."""
    path = Path(path)
    if wait_until(path.exists, timeout, 0.02) is None:
        names = sorted(p.name for p in path.parent.iterdir())
        pytest.fail(f"{path.name} is not there after {timeout} s; beside it: {names}")
    return path


def child_path(path, pid, number=None):
    """Where the child `pid` of a program that writes `path` has its profile: NAME.PID[.N].pb.gz."""
    path = Path(path)
    for ending in (".pb.gz", ".pb"):
        if path.name.endswith(ending):
            part = f".{pid}" if number is None else f".{pid}.{number}"
            return path.with_name(path.name[:-len(ending)] + part + ending)
    raise ValueError(path)


def lines(data):
    """The lines of an output."""
    return data.decode(errors="replace").splitlines()


def one_line(data):
    """The only line of an error output, which says who speaks."""
    found = lines(data)
    assert len(found) == 1, f"not exactly one line: {found}"
    assert found[0].startswith("stile"), found[0]
    assert len(found[0]) > len("stile: ") + 5, found[0]
    return found[0]


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


class Process:
    """A process found in /proc."""

    def __init__(self, pid):
        self.pid = pid
        self.argv = [a.decode(errors="replace") for a in _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]
        pairs = (v.split(b"=", 1) for v in _read(f"/proc/{pid}/environ").split(b"\0") if b"=" in v)
        self.environment = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in pairs}
        try:
            self.exe = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            self.exe = ""

    @property
    def state(self):
        """The letter of /proc/PID/stat, or "" if there is no such process any more."""
        stat = _read(f"/proc/{self.pid}/stat").decode(errors="replace")
        return stat.rpartition(")")[2].split()[0] if stat else ""

    @property
    def parent(self):
        """Its parent's pid, or 0."""
        stat = _read(f"/proc/{self.pid}/stat").decode(errors="replace")
        return int(stat.rpartition(")")[2].split()[1]) if stat else 0

    @property
    def alive(self):
        return self.state not in ("", "Z", "X")

    def is_collector(self):
        return self.exe.startswith(str(BUILD)) and "collect" in self.argv[1:]

    def __repr__(self):
        return f"{self.pid} {self.argv}"


def processes():
    return [Process(int(d)) for d in os.listdir("/proc") if d.isdigit() and int(d) != os.getpid()]


def marked(mark):
    """All processes that a test started and that are still there."""
    return [p for p in processes() if p.alive and p.environment.get(MARK) == mark]


def collectors(mark):
    """The collectors among them, without the forks of theirs that write files."""
    found = [p for p in marked(mark) if p.is_collector()]
    pids = {p.pid for p in found}
    return [p for p in found if p.parent not in pids]


def end_process(p):
    """Kills one process by its pid."""
    try:
        os.kill(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def wait_for_collector(mark, timeout=20):
    """The one collector of this test's program."""
    found = wait_until(lambda: collectors(mark), timeout, 0.02)
    assert found, "no collector is running"
    assert len(found) == 1, f"more than one collector: {found}"
    return found[0]
