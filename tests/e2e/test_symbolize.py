"""`stile symbolize`: reports get names by build ids, and the text around them stays as it is."""

import re
import shutil
import subprocess

import pytest

import harness


def symbolize(text, *argv, timeout=100):
    text = text if isinstance(text, bytes) else text.encode()
    return subprocess.run([str(harness.STILE), "symbolize", *argv], input=text, capture_output=True,
                          timeout=timeout, check=False, env=harness.clean_environment())


def tool(*argv):
    return subprocess.run([harness.tool(argv[0]), *map(str, argv[1:])], capture_output=True, timeout=60,
                          check=True).stdout.decode()


class Module:
    """A program, where it was, and an address in a function of it."""

    def __init__(self, path, function, start=0x555555554000):
        self.path, self.start = path, start
        self.id = re.search(r"Build ID: ([0-9a-f]+)", tool("readelf", "-n", path))[1]
        found = re.search(rf"^([0-9a-f]+) [tT] {function}$", tool("nm", path), re.M)
        self.address = int(found[1], 16)

    def report(self, path=None, build_id=None):
        path = path or self.path
        return (f"stile: crash report of process 12 (name): SIGABRT (SI_TKILL)\n"
                f"exception: N5outer5innerE: what: it is\n"
                f'thread 12 "name" crashed:\n'
                f"  #0 {self.start + self.address:#x} {path}+{self.address:#x} (name+0x4)\n"
                f"  #1 0x10\n"
                f"modules:\n"
                f"  {self.start:#x}-{self.start + 0x100000:#x} {self.start:#x} {build_id or self.id} {path}\n"
                f"stile: end of the report\n")


@pytest.fixture(name="module", scope="module")
def module_fixture():
    return Module(harness.program("standing"), "stand_in_pipe")


def named(module, text):
    where = (rf"  #0 {module.start + module.address:#x} stand_in_pipe at \S*standing\.c:\d+ "
             rf"\(\S+\+{module.address:#x}\)\n")
    return len(re.findall(where, text))


def test_log_around_it(module):
    """Two reports in a log of other text, which has bytes of all kinds and no last newline."""
    before, after = b"a line\n\0\xff\r\n  #0 0x10 not ours\n", b"\n\nthe end"
    report = module.report().encode()
    result = symbolize(before + report + before + report + after)
    assert result.returncode == 0 and result.stderr == b""
    out = result.stdout
    assert out.startswith(before) and out.endswith(b"end of the report\n" + after)
    assert out.count(before) == 2
    assert named(module, out.decode(errors="replace")) == 2
    assert out.count(b"exception: outer::inner: what: it is\n") == 2
    assert out.count(b"\n  #1 0x10\nmodules:\n") == 2
    assert symbolize(out).stdout == out, "named twice"


def test_carriage_returns(module):
    """A log that a terminal or another system has had in hand: named all the same, and its lines end as they did."""
    text = "before\n" + module.report() + "after\n"
    result = symbolize(text.replace("\n", "\r\n"))
    assert result.returncode == 0
    out = result.stdout.decode()
    assert out.count("\n") == out.count("\r\n") == out.count("\r")
    assert out.replace("\r\n", "\n") == symbolize(text).stdout.decode()
    assert named(module, out.replace("\r\n", "\n")) == 1


def test_file_and_cut(module, tmp_path):
    """A report that ends in the middle is named as far as it goes, where it says which files there were."""
    file = tmp_path / "report.txt"
    file.write_text(module.report().replace("stile: end of the report\n", ""), encoding="ascii")
    result = symbolize("", str(file))
    assert result.returncode == 0 and named(module, result.stdout.decode()) == 1
    text = module.report()
    for cut in range(0, len(text), 37):
        assert symbolize(text[:cut]).returncode == 0
    nothing = symbolize(text[:text.index("modules:")])
    assert nothing.stdout.decode() == text[:text.index("modules:")].replace("N5outer5innerE", "outer::inner")


def test_other_build(module):
    """A file is not believed for its path."""
    text = module.report(build_id="00" * 20)
    out = symbolize(text).stdout.decode()
    assert f"({module.path} is another build" in out
    assert "stand_in_pipe" not in out
    assert "(name+0x4)" in out


def test_elsewhere(module, tmp_path):
    """On another machine the program is not there, but its debug file is, under its build id."""
    directory = tmp_path / ".build-id" / module.id[:2]
    directory.mkdir(parents=True)
    text = module.report(path="/opt/gone/program")
    assert named(module, symbolize(text, "-d", str(tmp_path)).stdout.decode()) == 0
    tool("objcopy", "--only-keep-debug", module.path, directory / f"{module.id[2:]}.debug")
    out = symbolize(text, "--debug-dir", str(tmp_path))
    assert named(module, out.stdout.decode()) == 1, out
    shutil.copy(harness.program("usage"), directory / f"{module.id[2:]}.debug")
    assert named(module, symbolize(text, f"--debug-dir={tmp_path}").stdout.decode()) == 0


@pytest.mark.parametrize("argv, status, words", [
    (["/nonexistent/file"], 1, "cannot read /nonexistent/file"),
    (["/"], 1, "/: Is a directory"),
    (["-x"], 2, "unknown argument -x"),
    (["-d"], 2, "no directory given"),
])
def test_errors(argv, status, words):
    result = symbolize("", *argv)
    assert result.returncode == status and result.stdout == b""
    assert words in harness.one_line(result.stderr)


def test_much(module):
    """Time goes with the size."""
    frames = "".join(f"  #{i} {module.start + module.address + i % 9:#x}\n" for i in range(100000))
    out = symbolize(module.report().replace("  #1 0x10\n", frames), timeout=60).stdout.decode()
    assert out.count(" stand_in_pipe at ") > 100000
