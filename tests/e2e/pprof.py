"""Reads a pprof profile, adds it up, and checks the rules of the format that its readers rely on."""

import atexit
import gzip
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter, namedtuple
from functools import lru_cache
from pathlib import Path

import harness

SAMPLE_TYPES = [("samples", "count"), ("cpu", "nanoseconds")]
PERIOD_TYPES = {"cpu": ("cpu", "nanoseconds"), "delay": ("contentions", "count")}
BRACKETED = re.compile(r"^\[[a-z ]+\]$")
UNRESOLVED = re.compile(r"\+0x[0-9a-f]+$")


def _load_schema():
    """Compiles the project's own schema, in a directory of this process's own."""
    out = tempfile.mkdtemp(prefix="stile-e2e-schema-")
    atexit.register(shutil.rmtree, out, True)
    proto = harness.SOURCE / "proto"
    subprocess.run([harness.tool("protoc"), f"--python_out={out}", f"-I{proto}", str(proto / "profile.proto")],
                   check=True)
    sys.path.insert(0, out)
    import profile_pb2  # pylint: disable=import-outside-toplevel,import-error
    return profile_pb2


pb2 = _load_schema()
SCHEMA = harness.SOURCE / "proto" / "profile.proto"

Frame = namedtuple("Frame", "name system_name file line mapping address")
Sample = namedtuple("Sample", "frames count ns labels")  # frames: leaf first, inlined ones as their own
Mapping = namedtuple("Mapping", "filename build_id start limit offset")


class Profile:
    """A profile, with its tables resolved."""

    def __init__(self, data, name="profile"):
        self.name = name
        self.data = data
        self.pb = pb2.Profile()
        self.pb.ParseFromString(data)
        pb = self.pb
        self.strings = pb.string_table
        text = self.text
        self.sample_types = [(text(t.type), text(t.unit)) for t in pb.sample_type]
        self.period_type = (text(pb.period_type.type), text(pb.period_type.unit))
        self.comments = [text(c) for c in pb.comment]
        self.mappings = {m.id: Mapping(text(m.filename), text(m.build_id), m.memory_start, m.memory_limit,
                                       m.file_offset) for m in pb.mapping}
        self.functions = {f.id: f for f in pb.function}
        self.locations = {loc.id: self._frames(loc) for loc in pb.location}
        self.samples = [self._sample(s) for s in pb.sample]

    def text(self, index):
        return self.strings[index]

    def _frames(self, location):
        mapping = self.mappings.get(location.mapping_id)
        frames = []
        for line in location.line:
            f = self.functions[line.function_id]
            frames.append(Frame(self.text(f.name), self.text(f.system_name), self.text(f.filename), line.line,
                                mapping, location.address))
        return frames or [Frame("", "", "", 0, mapping, location.address)]

    def _sample(self, sample):
        frames = [f for i in sample.location_id for f in self.locations[i]]
        labels = {self.text(lab.key): self.text(lab.str) if lab.str else lab.num for lab in sample.label}
        return Sample(frames, sample.value[0], sample.value[1], labels)

    @property
    def main_file(self):
        """The main binary comes first."""
        return self.text(self.pb.mapping[0].filename) if self.pb.mapping else ""

    @property
    def ns(self):
        return sum(s.ns for s in self.samples)

    @property
    def count(self):
        return sum(s.count for s in self.samples)

    def flat(self):
        """CPU nanoseconds by the leaf's function."""
        total = Counter()
        for s in self.samples:
            total[s.frames[0].name] += s.ns
        return total

    def cum(self, value="ns", **labels):
        """CPU nanoseconds (or "count") by every function of a stack, once a stack; of these labels only."""
        total = Counter()
        for s in self.samples:
            if all(s.labels.get(k) == v for k, v in labels.items()):
                for name in {f.name for f in s.frames}:
                    total[name] += getattr(s, value)
        return total

    def by_label(self, key):
        """CPU nanoseconds by the value of a label."""
        total = Counter()
        for s in self.samples:
            total[s.labels.get(key)] += s.ns
        return total

    def calls(self):
        """Every sample as (frames, sample), its frames leaf first: those that are on the stack. An inlined function has
        none of its own, and the kernel's is another stack."""
        for raw, s in zip(self.pb.sample, self.samples):
            frames = [self.locations[i][-1] for i in raw.location_id]
            yield frames[1:] if frames and frames[0].name == "[kernel]" else frames, s

    def stacks(self, function):
        """The samples in which a function takes part."""
        return [s for s in self.samples if any(f.name == function for f in s.frames)]


def load(path):
    """Reads a file; one named .gz has to be gzip, the other must not be."""
    data = Path(path).read_bytes()
    if str(path).endswith(".gz"):
        assert data[:2] == b"\x1f\x8b", f"{path} is not gzip"
        data = gzip.decompress(data)
    return Profile(data, Path(path).name)


class Ends(Profile):
    """A profile of whose stacks only both ends are looked at: there are millions of frames."""

    def _sample(self, sample):
        ids = sample.location_id
        frames = self.locations[ids[0]] + self.locations[ids[-1]]
        return Sample(frames, sample.value[0], sample.value[1], {"depth": len(ids)})

    def stacks_by_end(self):
        """Samples by how their stacks end: "whole", a reason, or what stands at the root."""
        total = Counter()
        for s in self.samples:
            root = s.frames[-1]
            if root.name == "[exec and exit]":
                continue
            whole = reason(s) is None and is_start(root)
            total["whole" if whole else root.name] += s.count
        return total


def load_ends(path):
    """As load does, of a file that is waited for."""
    return Ends(gzip.decompress(harness.wait_for_file(path).read_bytes()), path.name)


def valid(path, timeout=harness.FILE_WAIT, sample_types=None):
    """Waits for a profile, reads it, and asserts that it keeps every rule."""
    p = load(harness.wait_for_file(path, timeout))
    found = problems(p, sample_types or SAMPLE_TYPES)
    assert not found, f"{p.name}: {found}"
    return p


# --- Shares


# Where time went in which the program had no stack to be walked: places, not reasons why a stack is not whole.
PLACES = ("[kernel]", "[exec and exit]", "[children not profiled]")


def reason(sample):
    """Why a stack is not whole: the bracketed function at its root, or None."""
    root = sample.frames[-1].name if sample.frames else ""
    return root if BRACKETED.match(root) and root not in PLACES else None


def bracketed_ns(profiles):
    """Nanoseconds by reason."""
    total = Counter()
    for p in profiles:
        for s in p.samples:
            if reason(s):
                total[reason(s)] += s.ns
    return total


def bracketed_but_full_ns(profiles):
    """The same, beyond the kernel's tick without what found no room: there it says how busy the machine was."""
    total = bracketed_ns(profiles)
    if profiles[0].pb.period < 1e9 / harness.TICK_HZ:
        del total["[buffer full]"]
    return total


def exec_and_exit_ns(p):
    """Loading the program, and the ends of its threads after their last look at their clocks."""
    return sum(s.ns for s in p.samples if s.frames[-1].name == "[exec and exit]")


def bracketed_share(profiles):
    ns = sum(p.ns for p in profiles)
    return sum(bracketed_ns(profiles).values()) / ns if ns else 0.0


def complete_share(profiles):
    """The share of time in stacks that reach where a program or a thread starts, of the time in which all code of
    the stack has unwind information; and the stacks that do not, by time."""
    whole, total, broken = 0, 0, Counter()
    for p in profiles:
        for s in p.samples:
            own = [f for f in s.frames if not BRACKETED.match(f.name)]
            if not own and reason(s) is None:
                continue
            if not all(has_unwind_info(f) for f in own):
                continue
            total += s.ns
            if reason(s) is None and is_start(s.frames[-1]):
                whole += s.ns
            else:
                broken[" < ".join(f.name for f in s.frames[:4] + s.frames[-3:])] += s.ns
    return (whole / total if total else 0.0), broken


START_NAMES = {"_start", "clone", "__clone", "clone3", "__clone3", "start_thread"}


BARRIERS = re.compile(r"stack barriers: (?P<wish>\w+);(?: off: (?P<off>[^;]+);)? placed (?P<placed>\d+), hit (?P<hit>\d+), retired (?P<retired>\d+), "
                      r"restored (?P<restored>\d+); frames saved (?P<saved>\d+) of (?P<frames>\d+); "
                      r"samples without a stack because it was locked (?P<locked>\d+)")


def barriers(p):
    """What a profile says of its stack barriers, as counts by word: placed, hit, retired, restored, saved, frames, locked;
    and `off`: why there are none any more, or None. Empty if it says nothing."""
    said = [m for m in map(BARRIERS.fullmatch, p.comments) if m]
    assert len(said) <= 1
    return {word: n if word == "off" or n is None else int(n) for word, n in said[0].groupdict().items() if word != "wish"} if said else {}


def file_offset(frame):
    return frame.address - frame.mapping.start + frame.mapping.offset


def is_start(frame):
    """Whether a program or a thread starts here: by name, and where names are stripped, by place."""
    if frame.name in START_NAMES:
        return True
    if frame.mapping is None:
        return False
    offset = file_offset(frame)
    elf = Elf.open(frame.mapping.filename)
    if elf and 0 <= offset - elf.entry_offset < 128:
        return True
    return any(name == frame.mapping.filename and abs(offset - at) < 32 for name, at in known_roots())


@lru_cache
def known_roots():
    """Where libgcc's unwinder says that stacks begin: (file, offset)."""
    out = harness.run([harness.program("roots")], timeout=60).out.decode()
    return [(line.rpartition(" ")[0], int(line.rpartition(" ")[2])) for line in out.splitlines()]


class Elf:
    """As much of an ELF file as the checks need: segments, entry point, build id, ranges with CFI."""

    def __init__(self, data):
        self.data = data
        (self.entry, phoff) = struct.unpack_from("<QQ", data, 24)
        (phentsize, phnum) = struct.unpack_from("<HH", data, 54)
        self.segments = [struct.unpack_from("<IIQQQQQQ", data, phoff + i * phentsize) for i in range(phnum)]
        self.entry_offset = self.to_offset(self.entry)
        self.frames = self._frame_table()

    @staticmethod
    @lru_cache
    def open(path):
        """None for what is no ELF file, or is gone."""
        try:
            data = Path(path).read_bytes()
        except OSError:
            return None
        return Elf(data) if data[:4] == b"\x7fELF" else None

    def to_offset(self, address):
        for kind, _, offset, vaddr, _, filesz, _, _ in self.segments:
            if kind == 1 and vaddr <= address < vaddr + filesz:
                return address - vaddr + offset
        return -1

    def to_address(self, offset):
        for kind, flags, off, vaddr, _, filesz, _, _ in self.segments:
            if kind == 1 and flags & 1 and off <= offset < off + filesz:
                return offset - off + vaddr
        return None

    def _frame_table(self):
        """.eh_frame_hdr's sorted table as (starts, FDE addresses), if it is of the usual encoding."""
        for kind, _, offset, vaddr, _, _, _, _ in self.segments:
            if kind == 0x6474E550 and self.data[offset:offset + 4] == b"\x01\x1b\x03\x3b":
                n = struct.unpack_from("<I", self.data, offset + 8)[0]
                flat = struct.unpack_from(f"<{2 * n}i", self.data, offset + 12)
                return [v + vaddr for v in flat[0::2]], [v + vaddr for v in flat[1::2]]
        return [], []

    def has_cfi(self, address):
        """Whether an FDE covers an address."""
        starts, entries = self.frames
        low, high = 0, len(starts)
        while low < high:
            mid = (low + high) // 2
            low, high = (mid + 1, high) if starts[mid] <= address else (low, mid)
        if low == 0:
            return False
        entry = self.to_offset(entries[low - 1])
        size = struct.unpack_from("<I", self.data, entry + 12)[0]  # pc_range, with 4-byte encodings
        return address < starts[low - 1] + size


def has_unwind_info(frame):
    """Whether a frame's code has CFI. The kernel's and the vdso's stacks are not ours to doubt."""
    if frame.mapping is None:
        return False
    if frame.mapping.filename.startswith(("[vdso", "linux-vdso")):
        return True
    elf = Elf.open(frame.mapping.filename)
    if elf is None:
        return False
    address = elf.to_address(file_offset(frame))
    return address is not None and (elf.has_cfi(address) or is_start(frame))


def build_id(path):
    """What readelf -n says."""
    out = subprocess.run([harness.tool("readelf"), "-n", str(path)], capture_output=True, text=True, check=False)
    found = re.search(r"Build ID: ([0-9a-f]+)", out.stdout)
    return found.group(1) if found else ""


# --- Rules


def problems(p, sample_types=None):
    """Every rule of the format that the profile breaks, one line each."""
    found = _check_types(p, sample_types or SAMPLE_TYPES)
    for check in (_check_strings, _check_ids, _check_samples, _check_mappings, _check_flags,
                  _check_locations, _check_names, _check_comments):
        found += check(p)
    return found


def _check_strings(p):
    pb = p.pb
    found = []
    if not p.strings or p.strings[0] != "":
        found.append("string_table[0] is not empty")
    used = [t for vt in list(pb.sample_type) + [pb.period_type] for t in (vt.type, vt.unit)]
    used += [i for m in pb.mapping for i in (m.filename, m.build_id)]
    used += [i for f in pb.function for i in (f.name, f.system_name, f.filename)]
    used += [i for s in pb.sample for lab in s.label for i in (lab.key, lab.str, lab.num_unit)]
    used += list(pb.comment) + [pb.drop_frames, pb.keep_frames, pb.default_sample_type]
    if any(not 0 <= i < len(p.strings) for i in used):
        found.append("a string index is out of range")
    if len(set(p.strings)) != len(p.strings):
        found.append("a string is in the table twice")
    return found


def _check_types(p, sample_types):
    """The last sample type is the one that is shown, unless asked."""
    found = []
    if p.sample_types != sample_types:
        found.append(f"sample types {p.sample_types}")
    if p.period_type != PERIOD_TYPES[sample_types[-1][0]]:
        found.append(f"period type {p.period_type}")
    if p.pb.period <= 0:
        found.append(f"period {p.pb.period}")
    if p.text(p.pb.default_sample_type) != sample_types[-1][0]:
        found.append(f"default sample type {p.text(p.pb.default_sample_type)!r}")
    if p.pb.time_nanos < 1_500_000_000 * 10**9:
        found.append(f"time {p.pb.time_nanos}")
    if p.pb.duration_nanos <= 0:
        found.append(f"duration {p.pb.duration_nanos}")
    return found


def _check_ids(p):
    found = []
    for what, table in (("mapping", p.pb.mapping), ("location", p.pb.location), ("function", p.pb.function)):
        ids = [e.id for e in table]
        if 0 in ids:
            found.append(f"a {what} has id 0")
        if len(set(ids)) != len(ids):
            found.append(f"a {what} id is doubled")
    for loc in p.pb.location:
        if loc.mapping_id and loc.mapping_id not in p.mappings:
            found.append(f"location {loc.id} names mapping {loc.mapping_id}, which is not there")
    return found


def _check_samples(p):
    found = []
    for i, s in enumerate(p.pb.sample):
        if len(s.value) != len(p.pb.sample_type):
            found.append(f"sample {i} has {len(s.value)} values")
        if any(v < 0 for v in s.value):
            found.append(f"sample {i} has a negative value")
        if not any(s.value):
            found.append(f"sample {i} is all zero")
        if not s.location_id:
            found.append(f"sample {i} has no stack")
        found += _check_labels(p, i, s)
    keys = Counter((tuple(s.location_id), str(sorted((x.key, x.str, x.num) for x in s.label))) for s in p.pb.sample)
    if any(n > 1 for n in keys.values()):
        found.append("two samples have the same stack and labels")
    return found


def _check_labels(p, i, sample):
    found = []
    kinds = {}
    for lab in sample.label:
        key = p.text(lab.key)
        if key.startswith("pprof::") or key == "":
            found.append(f"sample {i} has the reserved label {key!r}")
        if lab.str and lab.num:
            found.append(f"sample {i}: label {key} has both text and number")
        if key in kinds:
            found.append(f"sample {i}: label {key} is there twice")
        kinds[key] = "str" if lab.str else "num"
    wanted = {"thread": "str", "tid": "num", "pid": "num"}
    if {k: kinds.get(k) for k in wanted} != wanted:
        found.append(f"sample {i} has labels {kinds}")
    return found


def _check_mappings(p):
    found = []
    for m in p.pb.mapping:
        name = p.text(m.filename)
        if m.memory_start >= m.memory_limit:
            found.append(f"mapping {name} is empty")
        if p.text(m.build_id) != p.text(m.build_id).lower():
            found.append(f"mapping {name}: build id is not lower case")
        if name.startswith("/") and not name.endswith(" (deleted)") and Path(name).is_file():
            if p.text(m.build_id) != build_id(name):
                found.append(f"mapping {name}: build id {p.text(m.build_id)!r} is not the file's {build_id(name)!r}")
    for loc in p.pb.location:
        m = p.mappings.get(loc.mapping_id)
        if m and not m.start <= loc.address < m.limit:
            found.append(f"location {loc.id}: {loc.address:#x} is outside of its mapping {m.filename}")
    return found


def _check_flags(p):
    """A flag stops readers from asking the file itself, so it has to hold for the mapping as a whole."""
    found = []
    lines_of = {m.id: [loc.line for loc in p.pb.location if loc.mapping_id == m.id] for m in p.pb.mapping}
    for m in p.pb.mapping:
        name = p.text(m.filename)
        lines = lines_of[m.id]
        if not lines:
            continue
        # A place without any symbol, such as a PLT entry, no reader can name either.
        lines = [ls for ls in lines if not ls or not UNRESOLVED.search(p.text(p.functions[ls[-1].function_id].name))]
        named = [bool(ls) for ls in lines]
        if m.has_functions and not lines:
            found.append(f"mapping {name} says has_functions, and none has a name")
        filed = sum(bool(ls) and p.functions[ls[-1].function_id].filename != 0 for ls in lines)
        lined = sum(bool(ls) and ls[-1].line > 0 for ls in lines)
        if m.has_functions and not all(named):
            found.append(f"mapping {name} says has_functions, {named.count(False)} of {len(named)} have no name")
        if m.has_filenames and filed < len(lines):
            found.append(f"mapping {name} says has_filenames, {filed} of {len(lines)} have one")
        if m.has_line_numbers and lined < len(lines):
            found.append(f"mapping {name} says has_line_numbers, {lined} of {len(lines)} have one")
    return found


def _check_locations(p):
    found = []
    for loc in p.pb.location:
        if any(line.function_id not in p.functions for line in loc.line):
            found.append(f"location {loc.id} names a function that is not there")
        if not loc.line:
            found.append(f"location {loc.id} at {loc.address:#x} has no line: a file:line or at least module+offset")
        if not loc.mapping_id and loc.address and any(p.locations[loc.id][0].name == n for n in ("",)):
            found.append(f"location {loc.id} has neither name nor mapping")
    return found


def _check_names(p):
    return [f"function {f.id} has no name" for f in p.pb.function if not p.text(f.name)]


def _check_comments(p):
    """Version, command line, clock, both rates, and a count for every reason."""
    text = "\n".join(p.comments)
    wanted = {"version": r"^stile \d+\.\d+", "command line": r"^command: ."}
    if p.period_type[0] == "cpu":
        wanted.update({"clock": r"^clock: .", "rates": r"\d+ Hz requested, .*\d"})
    else:
        wanted.update({"rate": r"^rate: .*\d+ ns", "lost waits": r"^lost: \d+ waits"})
    wanted.update({name: re.escape(name) for name in {reason(s) for s in p.samples} - {None}})
    return [f"no comment says the {what}" for what, how in wanted.items() if not re.search(how, text, re.M)]
