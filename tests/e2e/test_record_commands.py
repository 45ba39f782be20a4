"""Commands that take no preload, or mind one: they run as they would without `stile record`, and one line says what to do."""

import os
import shutil
import struct

import pytest

import harness
import pprof

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
__attribute__((noinline)) static unsigned long spin_here(void)
{
    volatile unsigned long sum = 0;
    while (clock() < CLOCKS_PER_SEC / 3)
        for (unsigned i = 0; i < 100000; i++)
            sum += i;
    return sum;
}
int main(int argc, char **argv)
{
    volatile char *p = malloc(100);
    p[0] = (char)spin_here();
    if (argc > 1)
        p[atoi(argv[1])] = 1;
    if (p[0] == 1 && p[99] == 1)
        puts("both");
    free((void *)p);
    fprintf(stderr, "mine\n");
    puts("ok");
    return 5;
}
"""


def build(directory, *options, more="", compiler="gcc"):
    """A program that works a third of a second, says two words and ends with 5."""
    source = directory / "program.c"
    source.write_text(SOURCE + more)
    binary = directory / "program"
    r = harness.run([harness.tool(compiler), "-O1", "-g", "-o", binary, source, *options], timeout=60)
    return binary if r.status == 0 else None


def record(out, *argv, **options):
    return harness.run([harness.STILE, "record", "-o", out, "--", *argv], timeout=60, **options)


def assert_told(r, *words, own=b"mine\n", output=b"ok\n", status=5):
    """The command's own output and status, and before them one line of ours."""
    assert (r.status, r.out) == (status, output), r
    line, newline, rest = r.err.partition(b"\n")
    assert newline and rest == own, r
    assert line.startswith(b"stile record: no profile of "), line
    for word in words:
        assert word.encode() in line, line


def assert_profiled(r, out, status=5):
    assert (r.status, r.out) == (status, b"ok\n"), r
    assert r.err.startswith(b"mine\nstile: "), r
    assert b"no profile" not in r.err
    assert pprof.valid(out).cum()["spin_here"] == pytest.approx(0.33e9, rel=0.2)


@pytest.mark.parametrize("how", ["-static", "-static-pie"])
def test_static(out, tmp_path, how):
    binary = build(tmp_path, how)
    assert binary, "libc.a belongs to libc6-dev"
    assert_told(record(out, binary), str(binary), "statically linked", "link it dynamically")
    assert list(out.parent.iterdir()) == []


def test_children_of_a_static_program(out, tmp_path):
    """They are profiled, and the end says so."""
    starter = tmp_path / "starter.c"
    starter.write_text("#include <unistd.h>\nint main(int n, char **v) { (void)n; return execv(v[1], v + 1); }\n")
    static = tmp_path / "starter"
    assert harness.run([harness.tool("gcc"), "-static", "-o", static, starter], timeout=60).status == 0
    r = record(out, static, harness.program("ending"), "300", "exit")
    assert (r.status, r.out) == (7, b"working\ndone\n")
    assert harness.lines(r.err)[0].startswith(f"stile record: no profile of {static}: it is statically linked")
    assert any(line.startswith("stile: wrote ") for line in harness.lines(r.err)), r
    assert sum(pprof.valid(f).cum()["work_before_end"] for f in out.parent.iterdir()) > 0.2e9


def elf32():
    """The smallest program of 32 bits: write(1, "ok\\n", 3), then exit(5)."""
    text = bytes.fromhex("b804000000" "bb01000000" "b97c800408" "ba03000000" "cd80" "b801000000" "bb05000000" "cd80")
    base, headers = 0x08048000, 52 + 32
    code = headers + len(text)
    text = text.replace(struct.pack("<I", 0x0804807c), struct.pack("<I", base + code))
    size = code + 3
    header = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1,
                                                       0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 4096)
    return header + segment + text + b"ok\n"


def test_32_bits(out, tmp_path):
    """No loader may complain of the preload in the program's output."""
    binary = build(tmp_path, "-m32")
    own = b"mine\n"
    if binary is None:  # no compiler of 32 bits here
        binary, own = tmp_path / "small", b""
        binary.write_bytes(elf32())
        binary.chmod(0o755)
    try:
        plain = harness.run([binary])
    except OSError as e:
        pytest.skip(f"this kernel does not run programs of 32 bits: {e}")
    if plain.status != 5:
        pytest.skip(f"this machine does not run programs of 32 bits: {plain}")
    assert_told(record(out, binary), str(binary), "32-bit", "build it for 64 bits", own=own)
    assert list(out.parent.iterdir()) == []


def opened(path):
    """Another user may come to it."""
    for d in list(path.parents)[:-1]:
        if not d.stat().st_mode & 0o001:
            d.chmod(d.stat().st_mode | 0o011)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("owner,group,mode", [(65534, 0, 0o4755), (0, 65534, 0o2755)], ids=["setuid", "setgid"])
def test_setuid(out, tmp_path, owner, group, mode):
    binary = build(tmp_path)
    os.chown(binary, owner, group)
    binary.chmod(mode)
    if os.statvfs(binary).f_flag & os.ST_NOSUID:
        pytest.skip("setuid programs have no effect where tests are run")
    opened(binary)
    assert_told(record(out, binary), str(binary), "setuid", "run a copy without those bits")
    assert list(out.parent.iterdir()) == []
    copy = tmp_path / "copy"
    shutil.copyfile(binary, copy)
    copy.chmod(0o755)
    assert_profiled(record(out, copy), out)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_setuid_to_who_runs_it(out, tmp_path):
    """No rights are gained, so that the preload works."""
    binary = build(tmp_path)
    binary.chmod(0o4755)
    assert_profiled(record(out, binary), out)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_file_capabilities(out, tmp_path):
    """For whoever is not root."""
    binary = build(tmp_path)
    # Version 2, effective: CAP_NET_BIND_SERVICE.
    try:
        os.setxattr(binary, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    except OSError as e:
        pytest.skip(f"files have no capabilities here: {e}")
    binary.chmod(0o755)
    opened(binary)
    out.parent.chmod(0o777)
    user = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        plain = harness.run([harness.STILE, "--version"], **user)
        own = harness.run([binary], **user)
    except PermissionError as e:
        pytest.skip(f"another user cannot come to the programs: {e}")
    if plain.status != 0 or own.status != 5:
        pytest.skip(f"another user cannot run the programs: {plain} {own}")
    assert_told(record(out, binary, **user), "capabilities")
    assert_profiled(record(out, binary), out)


# --- AddressSanitizer, whose runtime ends a program when a library comes before it


ASAN = ["-fsanitize=address"]
OWN_OPTIONS = 'const char *__asan_default_options(void) { return "exitcode=33"; }\n'


def sanitized(directory, *options, more=""):
    binary = build(directory, *ASAN, *options, more=more)
    if binary is None:
        pytest.skip("no AddressSanitizer here")
    return binary


@pytest.mark.parametrize("options", [(), ("-static-libasan",)], ids=["shared", "static"])
def test_asan(out, tmp_path, options):
    binary = sanitized(tmp_path, *options)
    assert harness.run([binary]).same == (5, b"ok\n", b"mine\n")
    assert_profiled(record(out, binary), out)
    out.unlink()
    r = harness.run([binary], profile=out)
    assert r.same == (5, b"ok\n", b"mine\n")
    assert pprof.valid(out).ns > 0.25e9


def test_asan_still_finds_errors(out, tmp_path):
    binary = sanitized(tmp_path)
    plain = harness.run([binary, "100"])
    r = record(out, binary, "100")
    assert r.status == plain.status == 1
    for said in (plain.err, r.err):
        assert b"ERROR: AddressSanitizer: heap-buffer-overflow" in said
    assert pprof.valid(out).cum()["spin_here"] > 0.2e9


def test_asan_with_options_of_its_own(out, tmp_path):
    """The program's count; the one that matters is added to the environment's."""
    binary = sanitized(tmp_path, more=OWN_OPTIONS)
    assert_profiled(record(out, binary), out)
    out.unlink()
    assert record(out, binary, "100").status == 33
    r = record(out, binary, "100", env={"ASAN_OPTIONS": "exitcode=34"})
    assert r.status == 34
    pprof.valid(out)


def test_asan_among_the_children(out, tmp_path):
    binary = sanitized(tmp_path)
    r = record(out, "/bin/sh", "-c", '"$0"; exit $?', binary)
    assert (r.status, r.out) == (5, b"ok\n"), r
    assert sum(pprof.valid(f).cum()["spin_here"] for f in out.parent.iterdir()) > 0.2e9


# --- Scripts and what is missing


def script(directory, text, mode=0o755):
    path = directory / "script"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("first", ["#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", ""], ids=repr)
def test_script(out, tmp_path, first):
    """Run by its interpreter, which is what is profiled; without a first line, by the shell."""
    path = script(tmp_path, first + "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo end; exit 3\n")
    r = record(out, path)
    assert (r.status, r.out) == (3, b"end\n"), r
    assert b"no profile" not in r.err
    assert sum(pprof.valid(f).ns for f in out.parent.iterdir()) > 0.05e9


def test_script_of_a_static_interpreter(out, tmp_path):
    binary = build(tmp_path, "-static")
    assert_told(record(out, script(tmp_path, f"#!{binary}\n")), f"{tmp_path}/script: {binary}, which runs it, is statically")


def test_script_whose_interpreter_is_missing(out, tmp_path):
    path = script(tmp_path, "#!/nonexistent/interpreter -x\n")
    r = record(out, path)
    assert r.status == 127 and r.out == b""
    assert harness.one_line(r.err) == f"stile record: cannot run {path}: it needs /nonexistent/interpreter, which is not there"
    assert list(out.parent.iterdir()) == []


def test_program_whose_loader_is_missing(out, tmp_path):
    binary = build(tmp_path, "-Wl,--dynamic-linker=/nonexistent/ld.so")
    r = record(out, binary)
    assert r.status == 127 and r.out == b""
    assert harness.one_line(r.err) == f"stile record: cannot run {binary}: it needs /nonexistent/ld.so, which is not there"


def test_command_that_is_missing(out):
    r = record(out, "no-such-command-anywhere")
    assert r.status == 127
    assert harness.one_line(r.err) == "stile record: cannot run no-such-command-anywhere: no such command in PATH"


def test_script_without_permission(out, tmp_path):
    path = script(tmp_path, "#!/bin/sh\n", 0o644)
    r = record(out, path)
    assert r.status == 126 and str(path) in harness.one_line(r.err)


def test_file_that_is_no_program(out, tmp_path):
    """As execvp has it, which tries a shell then: the same status, the same words."""
    path = tmp_path / "cut"
    path.write_bytes(elf32()[:30])
    path.chmod(0o755)
    plain = harness.run([harness.tool("env"), path])
    r = record(out, path)
    assert r.status == plain.status == 127 and r.out == plain.out
    assert plain.err in r.err
