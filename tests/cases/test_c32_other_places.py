"""C32: chdir, chroot, setuid before the end; AT_SECURE."""

import os
import shutil

import pytest

import harness
import pprof

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
