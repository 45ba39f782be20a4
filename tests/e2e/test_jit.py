"""Code that is compiled at run time has the names that its compiler leaves in /tmp/perf-PID.map."""

import os
import signal
from pathlib import Path

import pytest

import harness
import pprof

NODE_SCRIPT = r"""
function hotLoop(n) {
    let x = 1;
    for (let i = 0; i < n; i++) x = (x * 31 + i) % 1000003;
    return x;
}
let total = 0;
while (process.cpuUsage().user < 1500000) total += hotLoop(100000);
console.log(total > 0);
"""


@pytest.fixture(name="run")
def runner():
    """Runs a program and takes the map away that it leaves: run(argv, **options) is (result, pid)."""
    pids = []

    def run(argv, **options):
        with harness.Program(argv, **options) as p:
            pids.append(p.pid)
            return p.wait(60), p.pid

    yield run
    for pid in pids:
        map_of(pid).unlink(missing_ok=True)


def map_of(pid):
    return Path(f"/tmp/perf-{pid}.map")


def names_of(sample):
    return [f.name for f in sample.frames]


def check_jit(profiles, used_ns):
    """jit_inner under jit_outer under main, whole, and with the time that it took."""
    stacks = [s for p in profiles for s in p.stacks("jit_inner of a jit")]
    ns = sum(s.ns for s in stacks)
    assert ns == pytest.approx(used_ns, rel=0.05, abs=2 * 10**7), (ns, used_ns)
    whole = [s for s in stacks if names_of(s)[:3] == ["jit_inner of a jit", "jit_outer", "main"]
             and pprof.reason(s) is None and pprof.is_start(s.frames[-1])]
    # A frame that is being set up has no frame pointer yet: its caller is missing.
    assert sum(s.ns for s in whole) > 0.97 * ns, [names_of(s) for s in stacks if s not in whole]
    for p in profiles:
        assert sum(p.text(f.name) == "jit_inner of a jit" for f in p.pb.function) == 1
        assert not p.stacks("jit_earlier")
        named = {f.mapping.filename for s in p.samples for f in s.frames if f.name.startswith("jit_")}
        assert named == {"[anon]"}
        assert all(m.has_functions for m in p.pb.mapping if p.text(m.filename) == "[anon]")
        assert f"names of run-time code: 3 lines of {map_of(p.samples[0].labels['pid'])}, 0 skipped" in p.comments


@pytest.mark.parametrize("end", ["return", "kill"])
def test_names_of_code_that_was_compiled(out, run, end):
    """Whether the program can still be asked for its files or not."""
    r, pid = run([harness.program("jit"), end], profile=out)
    assert r.status == (0 if end == "return" else -signal.SIGKILL) and r.err == b"", r
    p = pprof.valid(out)
    assert p.samples[0].labels["pid"] == pid
    check_jit([p], int(r.out))


def test_each_piece_has_the_names(out, run):
    r, _ = run([harness.program("jit")], profile=out, env={"PROFILE_INTERVAL": "400ms"})
    assert r.status == 0 and r.err == b"", r
    pieces = [pprof.valid(p, timeout=0) for p in sorted(out.parent.iterdir())]
    assert len(pieces) >= 3
    check_jit([p for p in pieces if p.stacks("jit_outer")], int(r.out))


def test_one_row_of_pprof(out, run, tmp_path):
    """Samples at different places of a function are one function's."""
    r, _ = run([harness.program("jit")], profile=out, hz=1000)
    p = pprof.valid(out)
    assert len({f.address for s in p.samples for f in s.frames if f.name == "jit_inner of a jit"}) > 1
    top = harness.run([harness.tool("go"), "tool", "pprof", "-top", "-nodecount=0", "-nodefraction=0", out],
                      env={"HOME": tmp_path, "PPROF_TMPDIR": tmp_path}, timeout=120)
    rows = [line.split(maxsplit=5) for line in harness.lines(top.out)]
    rows = [row for row in rows if row[-1:] == ["jit_inner of a jit"]]
    assert len(rows) == 1 and float(rows[0][1].rstrip("%")) > 90, top
    assert r.status == 0


def test_a_map_that_is_not_the_programs(out, run):
    """A file that stands there already, and that the program cannot have written, names nothing."""
    code = ("import ctypes, mmap, os, time\n"
            "os.symlink('/proc/self/maps', f'/tmp/perf-{os.getpid()}.map')\n"
            "page = mmap.mmap(-1, 4096, prot=7)\n"
            "page.write(bytes.fromhex('48ffcf75fbc3'))\n"  # dec %rdi; jnz; ret
            "call = ctypes.CFUNCTYPE(None, ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
            "while time.process_time() < 0.5: call(1000000)\n")
    r, pid = run([harness.PYTHON, "-c", code], profile=out)
    assert r.status == 0, r
    p = pprof.valid(out)
    assert any(name.startswith(("anon+0x", "zero+0x")) for name in p.flat()), p.flat()
    assert f"names of run-time code: {map_of(pid)} left out: it is a symbolic link" in p.comments


def test_node(out, run, tmp_path):
    """A hot JavaScript function has its name; without its map it is an address."""
    script = tmp_path / "hot.js"
    script.write_text(NODE_SCRIPT)
    r, pid = run([harness.tool("node"), "--perf-basic-prof", script], profile=out, cwd=tmp_path)  # it logs there
    assert r.same == (0, b"true\n", b""), r
    assert os.path.getsize(map_of(pid)) > 0
    p = pprof.valid(out)
    hot = sum(s.ns for s in p.samples if "hotLoop" in s.frames[0].name and str(script) in s.frames[0].name)
    assert hot > 0.5 * p.ns, p.flat().most_common(10)
    # What has a file is named by it, though the map speaks of it, too.
    own = [f.name for s in p.samples for f in s.frames if f.mapping and f.mapping.filename == p.main_file]
    assert own and not any(name.startswith(("Builtin:", "JS:")) for name in own)
