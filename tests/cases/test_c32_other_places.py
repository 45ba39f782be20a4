"""C32: chdir, chroot, setuid before the end; AT_SECURE."""

import ctypes
import os
import shutil
import subprocess

import pytest

import harness
import pprof

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18

root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def run_python(code, out, **options):
    return harness.run([harness.PYTHON, "-c", "import os\n" + code + "\nsum(i * i for i in range(4000000))\n"],
                       profile=out, **options)


def test_chdir_with_a_relative_path(out):
    r = run_python("os.chdir('/')", out.name, cwd=out.parent)
    assert r.same == (0, b"", b"")
    assert pprof.valid(out).ns > 0.1e9


@root_only
def test_chroot(out, tmp_path):
    (tmp_path / "root").mkdir()
    r = run_python(f"os.chroot('{tmp_path}/root'); os.chdir('/')", out)
    assert r.same == (0, b"", b"")
    assert pprof.valid(out).ns > 0.1e9


@root_only
def test_privileges_dropped(out):
    """The file was asked for by who could write it."""
    r = run_python("os.setgroups([]); os.setgid(65534); os.setuid(65534)", out)
    assert r.same == (0, b"", b"")
    assert pprof.valid(out).ns > 0.1e9


@root_only
def test_user_namespace_still_works(out):
    """unshare(CLONE_NEWUSER) fails in a process with threads, or one that shares its files with another."""
    code = ("import ctypes\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "print(libc.unshare(0x10000000 | 0x20000), ctypes.get_errno())")
    plain = harness.run([harness.PYTHON, "-c", code])
    r = run_python(code, out)
    assert r.same == plain.same
    assert pprof.valid(out).ns > 0.1e9


@root_only
def test_killed_after_privileges_were_dropped(out):
    """The collector is who it was at the start, whoever the program has become: it may look at it, and write."""
    out.parent.chmod(0o700)
    code = ("os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir('/')\n"
            "end = os.times().user + 0.2\n"
            "while os.times().user < end: pass\n"
            "os.kill(os.getpid(), 9)")
    r = run_python(code, out)
    assert r.status == -9 and r.err == b""
    p = pprof.valid(out)
    assert p.ns > 0.15e9 and out.stat().st_uid == 0


@root_only
def test_chroot_and_children(out, tmp_path):
    """Their collector is at work already; names come from files that they cannot see any more."""
    (tmp_path / "root").mkdir()
    code = (f"os.chroot('{tmp_path}/root'); os.chdir('/')\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    sum(i * i for i in range(4000000))\n"
            "    os._exit(3)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3")
    r = run_python(code, out)
    assert r.same == (0, b"", b"")
    assert pprof.valid(out).ns > 0.1e9
    children = harness.wait_until(lambda: [f for f in out.parent.glob("*.pb.gz") if f != out], 10)
    assert children and pprof.valid(children[0]).ns > 0.1e9


def test_directory_removed_meanwhile(out, tmp_path):
    """A relative path was resolved at the start: what is made in the place of the directory later is another one."""
    gone = tmp_path / "gone"
    gone.mkdir()
    r = run_python("os.rmdir(os.getcwd())", "out.pb.gz", cwd=gone)
    assert (r.status, r.out) == (0, b"")
    assert str(gone / "out.pb.gz") in harness.one_line(r.err)
    assert not gone.exists()


def copied(root, *files):
    """A root directory with these files and the libraries that they need, and nothing else."""
    for path in files:
        listed = harness.run([harness.tool("ldd"), path]).out.decode().split()
        for name in [str(path)] + [word for word in listed if word.startswith("/")]:
            to = root / name.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            if not to.exists():
                shutil.copy(name, to)


@root_only
@pytest.mark.parametrize("proc", [True, False], ids=["with proc", "without proc"])
def test_started_in_a_changed_root(out, tmp_path, proc):
    """No /dev there, perhaps not even /proc: a valid profile, or one line, and the program as it is."""
    root = tmp_path / "root"
    program = harness.program("ending")
    copied(root, program, harness.LIBRARY, harness.STILE)
    (root / "proc").mkdir()
    (root / "out").mkdir()

    def enter():
        if proc and (LIBC.unshare(CLONE_NEWNS) or LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
                     or LIBC.mount(b"proc", os.fsencode(root / "proc"), b"proc", 0, None)):
            raise OSError("no mount")
        os.chroot(root)
        os.chdir("/")

    try:
        assert harness.run([program, "300", "exit"], preexec_fn=enter).same == (7, b"working\ndone\n", b"")
    except subprocess.SubprocessError:
        pytest.skip("no right to mount here")
    r = harness.run([program, "300", "exit"], profile="/out/out.pb.gz", preexec_fn=enter)
    assert (r.status, r.out) == (7, b"working\ndone\n"), r
    written = root / "out" / "out.pb.gz"
    if r.err:
        assert not proc and not written.exists(), r
        harness.one_line(r.err)
    else:
        p = pprof.load(harness.wait_for_file(written))
        assert p.ns == pytest.approx(r.cpu_ns, rel=0.1, abs=60e6)
        assert not proc or p.cum()["work_before_end"] > 0.1e9


@root_only
def test_privileged_program_ignores_it(out, tmp_path):
    """A setuid program linked with the library must not write where its caller says."""
    shared = tmp_path / "api"
    shutil.copy(harness.program("api"), shared)
    os.chown(shared, 65534, 65534)
    shared.chmod(0o4755)
    for d in list(shared.parents)[:-1]:
        if not d.stat().st_mode & 1:
            d.chmod(d.stat().st_mode | 0o011)
    out.parent.chmod(0o777)
    r = harness.run([shared, "work1"], env={"PROFILE": out, "PROFILE_HZ": "nonsense"})
    assert r.same == (0, b"", b"")
    assert list(out.parent.iterdir()) == []


@root_only
@pytest.mark.parametrize("mode", [0o4755, 0o2755], ids=["setuid", "setgid"])
def test_privileged_program_takes_no_preload(out, tmp_path, mode):
    """The loader sees to it; the program's output is its own."""
    program = tmp_path / "ending"
    shutil.copy(harness.program("ending"), program)
    os.chown(program, 65534, 65534)
    program.chmod(mode)
    for d in list(program.parents)[:-1]:
        if not d.stat().st_mode & 1:
            d.chmod(d.stat().st_mode | 0o011)
    out.parent.chmod(0o777)
    r = harness.run([program, "50", "exit"], profile=out)
    assert r.same == (7, b"working\ndone\n", b"")
    assert list(out.parent.iterdir()) == []
