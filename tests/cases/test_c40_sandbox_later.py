"""C40: a program that gives up rights after its start goes on as it would, and is profiled on."""

import os

import pytest

import harness
import pprof

# Works, does it, works on, with a thread that is new.
PROGRAM = """
import ctypes, os, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWIPC, NEWUTS, NEWUSER, NEWNET, FS, FILES = 0x20000, 0x8000000, 0x4000000, 0x10000000, 0x40000000, 0x200, 0x400
def work_before(s): burn(s)
def work_after(s): burn(s)
def burn(s):
    end = time.thread_time() + s
    while time.thread_time() < end: sum(range(1000))
def unshare(flags):
    return libc.unshare(flags), ctypes.get_errno()
def setns(name):
    fd = os.open('/proc/self/ns/' + name, os.O_RDONLY)
    return libc.setns(fd, 0), ctypes.get_errno()
def filtered(action, *numbers):
    code = [struct.pack('HBBI', 0x20, 0, 0, 0)]
    for i, n in enumerate(numbers):
        code.append(struct.pack('HBBI', 0x15, len(numbers) - i, 0, n))
    code += [struct.pack('HBBI', 6, 0, 0, 0x7fff0000), struct.pack('HBBI', 6, 0, 0, action)]
    text = ctypes.create_string_buffer(b''.join(code))
    program = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(text))
    return libc.prctl(38, 1, 0, 0, 0), libc.prctl(22, 2, program, 0, 0)
KILL, FAIL = 0x80000000, 0x50001
SOCKET, CONNECT, MEMFD, PERF, PIDFD = 41, 42, 319, 298, 434
burn(0.15)
print(WHAT, flush=True)
burn(0.15)
t = threading.Thread(target=burn, args=(0.1,)); t.start(); t.join()
print('done', round(time.process_time() * 1e9), flush=True)
os._exit(6) if sys.argv[1:] else sys.exit(6)
"""

WAYS = {"nothing": "'as it is'",
        "seccomp kills": "filtered(KILL, SOCKET, CONNECT, MEMFD, PERF, PIDFD)",
        "seccomp fails": "filtered(FAIL, SOCKET, CONNECT, MEMFD, PERF, PIDFD)",
        "user namespace": "unshare(NEWUSER)",
        "all namespaces": "unshare(NEWUSER | NEWNS | NEWIPC | NEWUTS | NEWNET)",
        "own directories and files": "unshare(FS | FILES)",
        "setns": "setns('uts')",
        "chroot": "unshare(NEWUSER), os.chroot('/proc/self/fdinfo'), os.chdir('/')",
        "no dumps": "libc.prctl(4, 0, 0, 0, 0)",
        "no processes": "__import__('resource').setrlimit(__import__('resource').RLIMIT_NPROC, (0, 0))",
        "nobody": "os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)"}
ROOT_ONLY = ("setns", "nobody")


@pytest.mark.parametrize("way", WAYS)
def test_goes_on(out, way):
    if way in ROOT_ONLY and os.getuid() != 0:
        pytest.skip("needs root")
    argv = [harness.PYTHON, "-c", PROGRAM.replace("WHAT", WAYS[way])]
    plain = harness.run(argv)
    if plain.status != 6:
        pytest.skip(f"not to be done here: {plain.err[-200:]!r}")
    r = harness.run(argv, profile=out)
    assert (r.status, harness.lines(r.out)[0]) == (6, harness.lines(plain.out)[0]), r
    said = harness.lines(r.err)
    assert len(said) <= len(harness.lines(plain.err)) + 1, r
    used = int(harness.lines(r.out)[1].split()[1])
    p = pprof.valid(harness.wait_for_file(out))
    assert p.ns >= 0.9 * 400e6, (p.ns, p.comments)
    assert p.ns <= 1.05 * used + 60e6 + 4 * p.pb.period, (p.ns, used)
    assert len(p.by_label("tid")) >= 2


def test_child_of_a_sandbox(out):
    """What a profile takes to start may be what the filter kills for."""
    code = PROGRAM.replace("WHAT", WAYS["seccomp kills"]).replace(
        "burn(0.15)\nt =", "if os.fork() == 0: burn(0.1), os._exit(3)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))\nt =")
    r = harness.run([harness.PYTHON, "-c", code], profile=out)
    assert (r.status, harness.lines(r.out)[:2]) == (6, ["(0, 0)", "3"]), r
    assert "filter" in harness.one_line(r.err)
    assert pprof.valid(harness.wait_for_file(out)).ns >= 0.9 * 300e6
