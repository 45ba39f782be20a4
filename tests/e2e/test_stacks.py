"""Stacks and their names: C++, inlined code, libraries that are gone, callers' addresses, exceptions."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import harness
import pprof


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The profile of a program with names of every kind."""
    path = tmp_path_factory.mktemp("names") / "out.pb.gz"
    r = harness.run([harness.program("names")], profile=path, hz=harness.TICK_HZ)
    assert r.same == (0, b"done 1\n", b"")
    return path


def addr2line(binary, addresses):
    """{address: [(linked name, file, line)], innermost first}, from binutils."""
    asked = "".join(f"{a:#x}\n" for a in addresses)
    out = subprocess.run([harness.tool("addr2line"), "-a", "-i", "-f", "-e", str(binary)], input=asked, text=True,
                         capture_output=True, check=True).stdout.splitlines()
    found, at = {}, None
    lines = iter(out)
    for line in lines:
        if re.fullmatch(r"0x[0-9a-f]+", line):
            at = int(line, 16)
            found[at] = []
            continue
        file, _, number = re.sub(r" \(discriminator \d+\)$", "", next(lines)).rpartition(":")
        found[at].append((line, Path(file).name, int(number) if number.isdigit() else 0))
    return found


def demangle(name):
    return subprocess.run([harness.tool("c++filt"), name], capture_output=True, text=True, check=True).stdout.strip()


def main_locations(p):
    """{virtual address in the main binary: its frames}."""
    elf = pprof.Elf.open(p.main_file)
    main = p.pb.mapping[0]
    return {elf.to_address(loc.address - main.memory_start + main.file_offset): p.locations[loc.id]
            for loc in p.pb.location if loc.mapping_id == main.id}


def test_names_are_demangled(names):
    p = pprof.valid(names)
    found = {f.name for s in p.samples for f in s.frames}
    assert not [n for n in found if n.startswith(("_ZN", "_ZL", "_ZZ"))], found
    text = "\n".join(sorted(found))
    for pattern in (r"shop::Basket<unsigned long>::fill\(", r"shop::Basket<short>::fill\(", r"^(shop::)?mix\b",
                    r"^(shop::)?mix_twice\b", r"\(anonymous namespace\)::hidden_sum\(", r"outer\(.*lambda"):
        assert re.search(pattern, text, re.M), (pattern, text)
    for s in p.samples:
        for f in s.frames:
            if f.system_name.startswith("_Z"):
                assert f.name == demangle(f.system_name)


def test_lines_and_inlined_functions_agree_with_addr2line(names):
    p = pprof.valid(names)
    frames = main_locations(p)
    truth = addr2line(p.main_file, frames)
    inlined = 0
    for address, ours in frames.items():
        theirs = truth[address]
        if theirs == [("??", "??", 0)] or theirs[0][1] == "??":
            continue
        assert [(Path(f.file).name, f.line) for f in ours] == [(file, line) for _, file, line in theirs], \
            (hex(address), ours, theirs)
        if len(ours) > 1 and theirs[0][0] == theirs[-1][0]:  # binutils gives the innermost the symbol's name then
            ours, theirs = ours[1:], theirs[1:]
            inlined += 1
        assert [f.name for f in ours] == [demangle(name) for name, _, _ in theirs], (hex(address), ours, theirs)
    assert inlined > 0


def test_flags_of_a_program_with_debug_information(names):
    """Its functions are all named. A file and a line for all of it would be a lie: the C library's _start has none."""
    p = pprof.valid(names)
    main = p.pb.mapping[0]
    assert p.main_file == harness.program("names")
    assert main.has_functions


def test_functions_know_where_they_start(names):
    p = pprof.valid(names)
    starts = {p.text(f.name): f.start_line for f in p.pb.function if f.start_line}
    source = (harness.SOURCE / "tests" / "e2e" / "programs" / "names.cc").read_text().splitlines()
    at = next(i for i, line in enumerate(source, 1) if line == "int main()")
    assert starts["main"] == at


def has_debug_information(path, build_id):
    """In the file itself or in a separate one."""
    separate = Path("/usr/lib/debug/.build-id") / build_id[:2] / f"{build_id[2:]}.debug"
    return b".debug_info" in Path(path).read_bytes() or separate.exists()


def test_exported_names_alone_do_not_claim_the_mapping(names, tmp_path):
    """A stripped library may have debug information elsewhere, which a reader would not look for any more."""
    library = tmp_path / "plugin.so"
    path = tmp_path / "out.pb.gz"
    assert harness.run([harness.tool("strip"), "-o", library, harness.program("plugin.so")]).status == 0
    assert harness.run([harness.program("loader"), library, "1"], profile=path).status == 0
    checked = 0
    for p in (pprof.valid(names), pprof.valid(path)):
        for m in p.pb.mapping:
            name = p.text(m.filename)
            if not name.startswith("/") or has_debug_information(name, p.text(m.build_id)):
                continue
            assert not m.has_functions and not m.has_filenames and not m.has_line_numbers, name
            checked += 1
    assert checked >= 1
    found = {f.name for s in p.samples for f in s.frames if f.mapping and f.mapping.filename == str(library)}
    assert "plugin_spin" in found, "it is exported"
    assert any(re.fullmatch(r"plugin\.so\+0x[0-9a-f]+", n) for n in found), found


def is_call(code):
    """Whether some call ends where `code` ends: e8 rel32, or ff /2 with any operand."""
    if len(code) >= 5 and code[-5] == 0xE8:
        return True
    return any(code[-n] == 0xFF and code[1 - n] >> 3 & 7 == 2 for n in range(2, min(7, len(code)) + 1))


def test_callers_are_one_before_their_return(names):
    """A caller's address is its return address - 1: the byte after it follows a call. The leaf's is as it was, and so
    is that of a function which called the kernel."""
    p = pprof.valid(names)
    checked = wrong = 0
    callers = set()
    for s in p.pb.sample:
        in_kernel = p.locations[s.location_id[0]][0].name == "[kernel]"
        callers.update(list(s.location_id)[2 if in_kernel else 1:])
    for location in callers:
        f = p.locations[location][0]
        elf = pprof.Elf.open(f.mapping.filename) if f.mapping else None
        if elf:
            end = pprof.file_offset(f) + 1
            checked += 1
            wrong += not is_call(elf.data[end - 8:end])
    assert checked >= 4
    assert wrong == 0


def test_is_call_is_no_rubber_stamp():
    assert is_call(b"\x90\xe8\x01\x02\x03\x04")
    assert is_call(b"\x90\xff\xd0") and is_call(b"\x41\xff\x54\x24\x08")
    assert not is_call(b"\x90\x90\x90\x90\x90\x90")
    assert not is_call(struct.pack("<Q", 0))


def test_opens_without_the_program(tmp_path):
    """Sent to a colleague: names, files and lines are in the file."""
    binary = tmp_path / "gone"
    shutil.copy(harness.program("names"), binary)
    path = tmp_path / "out.pb.gz"
    assert harness.run([binary], profile=path).status == 0
    pprof.valid(path)
    binary.unlink()
    r = harness.run([harness.tool("go"), "tool", "pprof", "-lines", "-top", "-nodefraction=0", path],
                    env={"HOME": tmp_path}, timeout=60)
    assert r.status == 0, r
    assert b"shop::Basket" in r.out and b"names.cc:" in r.out, r


def test_program_deleted_while_it_runs(tmp_path):
    """And the library beside it: what was mapped is named all the same."""
    binary = tmp_path / "short-lived"
    shutil.copy(harness.program("split"), binary)
    path = tmp_path / "out.pb.gz"
    with harness.Program([binary, "1", "1000"], profile=path) as app:
        harness.wait_until(lambda: "short-lived" in harness.Process(app.pid).exe, 10)
        binary.unlink()
        assert app.wait(60).status == 0
    p = pprof.valid(path)
    named = {f: p.cum()[f] for f in ("spin_a", "spin_b", "spin_c")}
    assert all(named.values()) and sum(named.values()) > 0.95 * p.ns, (named, p.ns)


def test_stripped_program(tmp_path):
    """Names that nobody knows are places, module+0x…, and never the nearest symbol's."""
    binary = tmp_path / "stripped"
    assert harness.run([harness.tool("strip"), "-o", binary, harness.program("split")]).status == 0
    path = tmp_path / "out.pb.gz"
    assert harness.run([binary, "1", "500"], profile=path).status == 0
    p = pprof.valid(path)
    own = [f for s in p.samples for f in s.frames if f.mapping and f.mapping.filename == str(binary)]
    assert own and all(re.fullmatch(r"stripped\+0x[0-9a-f]+", f.name) for f in own), own[:5]
    assert not p.pb.mapping[0].has_functions
    share, broken = pprof.complete_share([p])
    assert share > 0.98, broken


def test_vdso_has_a_name(tmp_path):
    """Readers never symbolize the vdso: it is named here."""
    code = "import time\nt = time.perf_counter\nwhile time.process_time() < 1:\n    for i in range(100000): t()\n"
    path = tmp_path / "out.pb.gz"
    assert harness.run([harness.PYTHON, "-c", code], profile=path, hz=harness.TICK_HZ).status == 0
    p = pprof.valid(path)
    found = {f.name for s in p.samples for f in s.frames if f.mapping and "vdso" in f.mapping.filename}
    assert "__vdso_clock_gettime" in found or "clock_gettime" in found, found


def test_exceptions_and_deep_stacks(tmp_path):
    """What is thrown is caught, what is guarded is destroyed, and a thousand frames are one stack."""
    path = tmp_path / "out.pb.gz"
    plain = harness.run([harness.program("throwing")])
    r = harness.run([harness.program("throwing")], profile=path, hz=harness.TICK_HZ)
    assert r.same == plain.same == (0, b"caught 400 destroyed 111401 depth 1000\n", b"")
    p = pprof.valid(path)
    deep = [s for s in p.stacks("deep::leaf_work(unsigned long)")]
    assert sum(s.ns for s in deep) == pytest.approx(1e9, rel=0.15)
    depths = {sum(f.name.startswith("deep::descend(") for f in s.frames) for s in deep if not pprof.reason(s)}
    assert depths == {501, 1001}, depths
    assert all(pprof.is_start(s.frames[-1]) for s in deep if not pprof.reason(s))
    # A thousand frames that have no rules yet are seven blocks of some dozen, until the collector comes by for the first time.
    first = 5 / harness.TICK_HZ * 1e9
    assert sum(s.ns for s in deep if pprof.reason(s)) < 0.005 * p.ns + first, pprof.bracketed_ns([p])
    # While libgcc copies the registers of a landing pad over those that it saved, no unwinder could go on. This
    # program does little else.
    assert pprof.bracketed_share([p]) < 0.03, pprof.bracketed_ns([p])
    share, broken = pprof.complete_share([p])
    assert share > 0.97, broken.most_common(5)


def test_library_that_was_unloaded(tmp_path):
    """Its code, its name and its build id are in the profile, although it is not in the process any more."""
    plugin = harness.program("plugin.so")
    path = tmp_path / "out.pb.gz"
    r = harness.run([harness.program("loader"), plugin, "1"], profile=path)
    assert r.same == (0, b"done\n", b"")
    p = pprof.valid(path)
    assert p.cum()["work_in_plugin"] == pytest.approx(600e6, rel=0.1)
    assert p.cum()["plugin_spin"] == p.cum()["work_in_plugin"]
    assert p.cum()["work_after_unload"] == pytest.approx(300e6, rel=0.1)
    mapping = next(m for m in p.mappings.values() if m.filename == plugin)
    assert mapping.build_id == pprof.build_id(plugin) != ""


def test_library_loaded_again_and_again(tmp_path):
    path = tmp_path / "out.pb.gz"
    r = harness.run([harness.program("loader"), harness.program("plugin.so"), "20"], profile=path)
    assert r.same == (0, b"done\n", b"")
    p = pprof.valid(path)
    assert p.cum()["work_in_plugin"] == pytest.approx(600e6, rel=0.15)
    assert pprof.bracketed_share([p]) < 0.005, pprof.bracketed_ns([p])
