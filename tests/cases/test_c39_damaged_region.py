"""C39: a program writes garbage over the region, and programs of different versions meet at one collector: what is shared is checked
before it is believed, and what is wrong is said."""

import array
import os
import socket
import struct

import pytest

import harness
import pprof
import settings
from endings import assert_kept, ending

HELLO, VERSION_AT = 1, 4


@pytest.mark.parametrize("where", ["header", "slots", "all"])
def test_scribbling_program(out, where, setting):
    """The program is as it was, and its end is not held up; the profile is valid, and complete or says that it is damaged."""
    seed = settings.ALL.index(setting)
    r = harness.run([harness.program("scribbler"), where, str(seed), "100"], profile=out, timeout=60)
    assert (r.status, r.out) == (5, b"1\n"), r
    lines = harness.lines(r.err)
    used = int([line for line in lines if line.isdigit()][0])
    assert len(lines) <= 3 and all(line.isdigit() or line.startswith("stile: ") for line in lines), lines
    assert r.seconds < r.cpu_ns / 1e9 + 15
    found = harness.wait_until(lambda: not harness.collectors(os.environ[harness.MARK]), 20)
    assert found, "the collector goes on"
    said = len(lines) > 1
    for f in out.parent.iterdir():
        p = pprof.Profile(pprof.load(f).data)
        damaged = any(c.startswith("damaged: ") for c in p.comments)
        # A slot whose thread seems to be another one each time has its stacks once for each.
        problems = [x for x in pprof.problems(p) if x != "two samples have the same stack and labels"]
        assert problems == [] or damaged, problems
        assert p.ns < 1.5 * used + 2e9, "more than it can have used"
        f.unlink()
        said = True
    assert said, "neither a file nor a word"


def collector_name(mark):
    """The address of this test's collector, among those that there may be."""
    inode = os.readlink(f"/proc/{harness.wait_for_collector(mark).pid}/fd/3").partition("[")[2].rstrip("]")
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        found = [line.split()[7][1:] for line in table if line.split()[6:7] == [inode]]
    assert len(found) == 1 and found[0].startswith("stile-"), found
    return found[0]


def hello(name, version):
    """A process of another version says hello: with a region, maps and a pidfd of its own."""
    fds = [os.memfd_create("stile"), os.open("/proc/self/maps", os.O_RDONLY), os.pidfd_open(os.getpid())]
    os.ftruncate(fds[0], 1 << 20)
    text = b"x.pb.gz\0" * 7
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(5)
        s.connect("\0" + name)
        s.sendmsg([struct.pack("IIiI", HELLO, version, os.getpid(), len(text)) + text],
                  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    for fd in fds:
        os.close(fd)


def test_hello_of_another_version(out, mark):
    """It is not taken; the collector and its own program go on."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        name = collector_name(mark)
        version = int(name.split("-")[1])
        for other in (version + 1, version - 1, 0, 0xffffffff):
            hello(name, other)
        app.signal(15)
        assert app.wait(20).status == -15
    assert_kept(pprof.valid(out))
    assert list(out.parent.iterdir()) == [out]


def test_ancestor_of_another_version(out):
    """The program says so, and runs without a profile."""
    r = harness.run(ending("exit"), profile=out, env={"STILE_ROOT": f"stile-6-0123456789abcdef@{os.getpid()}"})
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert "of another version of Stile" in harness.one_line(r.err)
    assert list(out.parent.iterdir()) == []


def test_strangers_at_the_collector(out, mark):
    """Whoever finds its address can say what he likes: the profile is written all the same."""
    with harness.Program(ending("linger"), profile=out) as app:
        app.wait_output("done")
        name = collector_name(mark)
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as s:
                s.settimeout(1)
                try:
                    s.connect("\0" + name)
                    s.send(os.urandom(3000))
                    s.send(b"")
                except OSError:
                    pass
        app.signal(15)
        assert app.wait(20).status == -15
    assert_kept(pprof.valid(out))
