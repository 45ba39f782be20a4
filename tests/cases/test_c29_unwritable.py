"""C29: a place that cannot be written, or a file that somebody planted: one line, at the start where it can be known, nothing
followed, nothing overwritten, and the program as it was."""

import os
import stat
from pathlib import Path

import pytest

import harness
import pprof


def app(*way):
    return [harness.program("ending"), "50", *(way or ("exit",))]


def assert_unprofiled(r, *words):
    """The program ran as if nothing had been asked; one line says why."""
    assert (r.status, r.out) == (7, b"working\ndone\n"), r
    line = harness.one_line(r.err)
    for word in words:
        assert word in line, line


def test_place_that_cannot_be_written():
    for where in ("/nonexistent/directory/out.pb.gz", "/proc/out.pb.gz", "/etc/passwd/out.pb.gz", "/dev/null/out.pb.gz"):
        assert_unprofiled(harness.run(app(), profile=where), where)
        assert not Path(where).exists()


def somebody_else(directory):
    """Options of a program that is bound by permissions: another user where we are root."""
    if os.getuid() != 0:
        return {}
    for d in list(directory.parents)[:-1]:
        if not d.stat().st_mode & stat.S_IXOTH:
            d.chmod(d.stat().st_mode | stat.S_IXOTH)
    options = {"user": 65534, "group": 65534, "extra_groups": []}
    if harness.run(app(), **options).status != 7:
        pytest.skip("the build directory is not open to another user")
    return options


def test_directory_without_permission(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    r = harness.run(app(), profile=closed / "out.pb.gz", **somebody_else(closed))
    assert_unprofiled(r, str(closed))
    assert list(closed.iterdir()) == []


def test_directory_in_the_place_of_the_file(out):
    out.mkdir()
    assert_unprofiled(harness.run(app(), profile=out), str(out))
    assert list(out.iterdir()) == []


def test_device_behind_the_name(out):
    """A device is not replaced, and neither is the link to it."""
    for target in ("/dev/full", "/dev/null"):
        out.symlink_to(target)
        assert_unprofiled(harness.run(app(), profile=out), str(out))
        assert out.is_symlink() and stat.S_ISCHR(os.stat(target).st_mode)
        out.unlink()


def test_fifo_in_the_place_of_the_file(out):
    os.mkfifo(out)
    assert_unprofiled(harness.run(app(), profile=out), str(out))
    assert stat.S_ISFIFO(os.stat(out).st_mode)


# --- Planted


@pytest.mark.parametrize("precious", [b"precious", None], ids=["file", "nothing"])
def test_link_planted_at_the_target(out, tmp_path, setting, precious):
    """To somebody's file, or to where one would be made: known at the start, by the library and by record."""
    victim = tmp_path / "victim"
    if precious:
        victim.write_bytes(precious)
    out.symlink_to(victim)
    assert_unprofiled(harness.run(app(), profile=out), str(out))
    r = harness.run([*setting.record(out), *app()])
    assert r.status == 2 and r.out == b"" and "symbolic link" in harness.one_line(r.err)
    assert out.is_symlink() and list(out.parent.iterdir()) == [out]
    assert (victim.read_bytes() if precious else victim.exists()) == (precious or False)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_planted_at_the_target_meanwhile(out, tmp_path, kind):
    """Known only at the end: one line, and what was planted stands."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with harness.Program([harness.program("ending"), "300", "exit"], profile=out) as p:
        p.wait_output("working")
        {"link": lambda: out.symlink_to(victim), "directory": out.mkdir, "fifo": lambda: os.mkfifo(out)}[kind]()
        r = p.wait(60)
    assert_unprofiled(r, str(out))
    assert victim.read_bytes() == b"precious"
    assert (out.is_symlink(), stat.S_ISDIR(out.lstat().st_mode), stat.S_ISFIFO(out.lstat().st_mode)) == (
        kind == "link", kind == "directory", kind == "fifo")
    assert list(out.parent.iterdir()) == [out]


def test_links_planted_at_the_temporary_name(out, tmp_path):
    """It has the number of the process that writes, which can be guessed: of all that may be next there is a link to somebody's
    file. Nothing is followed. There is a profile, or one line says that there is none."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with harness.Program([harness.program("ending"), "300", "exit"], profile=out) as p:
        p.wait_output("working")
        planted = {f".{out.name}.{pid}.tmp" for pid in range(p.pid, p.pid + 3000)}
        for name in planted:
            out.with_name(name).symlink_to(victim)
        r = p.wait(60)
    assert (r.status, r.out) == (7, b"working\ndone\n"), r
    assert victim.read_bytes() == b"precious" and victim.stat().st_nlink == 1
    if out.exists():
        assert r.err == b"" and not out.is_symlink()
        pprof.valid(out)
    else:
        assert str(out) in harness.one_line(r.err)
    left = [f for f in out.parent.iterdir() if f != out]
    assert {f.name for f in left} <= planted and all(f.is_symlink() for f in left)


def test_mode_of_the_file(out):
    """0600 less the program's umask: whatever it does, nobody else reads it."""
    for umask, mode in ((0o000, 0o600), (0o022, 0o600), (0o177, 0o600), (0o277, 0o400)):
        r = harness.run(app(), profile=out, umask=umask)
        assert r.same == (7, b"working\ndone\n", b"")
        pprof.valid(out)
        assert stat.S_IMODE(out.stat().st_mode) == mode
        out.unlink()


# --- Full


def test_full_disk(tmp_path):
    """Known only at the end: then there is one line, and no half a file."""
    place = tmp_path / "small"
    place.mkdir()
    script = ('mount -t tmpfs -o size=16k tmpfs "$1" || exit 77\n'
              'cat /dev/zero >"$1/fill" 2>/dev/null\n'
              'place=$1; shift\n'
              'env "$@"; status=$?\n'
              'ls -A "$place" >&3\n'
              'exit $status\n')
    reader, writer = os.pipe()
    argv = [harness.tool("unshare"), "--mount", "/bin/bash", "-c", script.replace(">&3", f">&{writer}"), "bash", place,
            *harness.assignments(harness.profile_environment(place / "out.pb.gz")), *app()]
    r = harness.run(argv, pass_fds=[writer])
    os.close(writer)
    listing = os.read(reader, 4096)
    os.close(reader)
    if r.status in (1, 77) and r.out == b"":
        pytest.skip(f"no right to mount here: {r.err!r}")
    assert_unprofiled(r, "out.pb.gz")
    assert listing == b"fill\n"


def limited(out, how, *redirections):
    """Runs the program under a limit of files' sizes, which its output has no part in. Returns what it and the library said."""
    script = f'(ulimit {how} || exit 77; exec "$@" {" ".join(redirections)}) 2>&1 | cat; exit ${{PIPESTATUS[0]}}'
    r = harness.run(["/bin/bash", "-c", script, "bash", harness.tool("env"),
                     *harness.assignments({**harness.profile_environment(out), "LD_PRELOAD": ""}),
                     f"LD_PRELOAD={harness.LIBRARY}", *app()])
    assert r.status == 7 and r.err == b"", (how, r)
    return [line for line in harness.lines(r.out) if line not in ("working", "done")]


def test_file_size_limit(out):
    """RLIMIT_FSIZE binds shared memory too, and going beyond it kills by SIGXFSZ. The soft limit may be passed for that; where
    the hard one forbids it one line says so."""
    for kib in (0, 4, 1024, 8192, 131072):
        assert limited(out, f"-Sf {kib}") == [], kib
        pprof.valid(out)
        out.unlink()
        said = limited(out, f"-f {kib}")
        if said:
            assert len(said) == 1 and "ulimit -f" in said[0] and said[0].startswith("stile: "), said
            assert list(out.parent.iterdir()) == [] and kib < 131072
        else:
            pprof.valid(out)
            out.unlink()
            assert kib > 4


def test_line_into_a_full_file(out, tmp_path):
    """Not even the line that says so may kill."""
    err = tmp_path / "err"
    err.touch()
    assert limited(out, "-f 0", f'2>>"{err}"') == []
    assert err.read_bytes() == b"" and list(out.parent.iterdir()) == []


def test_line_into_a_pipe_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    r = harness.run(app(), profile="/nonexistent/out.pb.gz", stderr=writer)
    os.close(writer)
    assert (r.status, r.out) == (7, b"working\ndone\n")


@pytest.mark.parametrize("command, status", [(app(), 7), (["sh", "-c", "kill -PIPE $$"], -13),
                                             (["sh", "-c", "kill -XFSZ $$"], -25)], ids=["exit", "SIGPIPE", "SIGXFSZ"])
def test_lines_of_stile_record_that_nobody_reads(out, setting, command, status):
    """The command's exit status is told all the same, and the command has the signals as they were."""
    reader, writer = os.pipe()
    os.close(reader)
    assert harness.run(setting.record(out) + command, stderr=writer).status == status
    os.close(writer)
    pprof.valid(out)
    full = out.with_name("full")
    full.write_bytes(bytes(1024))
    script = 'ulimit -Sf 1; exec "$@" 2>> "$0"'
    assert harness.run(["/bin/bash", "-c", script, full, *setting.record(out), *command]).status == status
    assert full.stat().st_size == 1024
    pprof.valid(out)
