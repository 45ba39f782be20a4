"""What the profiles of different profilers say, in one form: samples, with the functions of their stacks."""

import bisect
import re
import struct
import subprocess
from dataclasses import dataclass

from driver import measure

PERF_MAGIC, GZIP_MAGIC = b"PERFILE2", b"\x1f\x8b"
PERF_LIMIT_S = 120


@dataclass
class Stack:
    count: int
    ns: float
    names: frozenset  # of all functions of the stack
    tid: int  # 0 where the profiler does not tell


def read(path, hz, symbols=None):
    """The stacks of a profile of any of the known formats. `hz`: the rate that was asked for, by which perf's samples
    are told as time. `symbols`: (starts, names) of the program, for gperftools, which writes addresses."""
    with open(path, "rb") as f:
        begins = f.read(len(PERF_MAGIC))
    if begins == PERF_MAGIC:
        return _perf(path, hz)
    if begins[:2] == GZIP_MAGIC:
        return _pprof(path)
    return _gperftools(path, symbols)


def count(path, hz):
    """How many samples a profile holds. Of perf's this is quicker than to read them."""
    with open(path, "rb") as f:
        if f.read(len(PERF_MAGIC)) == PERF_MAGIC:
            return len(_perf_script(path, "tid").splitlines())
    return sum(s.count for s in read(path, hz))


def readable(bench, section, names):
    """The profilers of these names, and those peers by path whose profiles can be read; of others it is said why not."""
    found = bench.sides(section, names)
    for peer in bench.peers_by_path(section):
        try:
            read(bench.run([bench.program("usage"), "threads", 1, 50], peer, hz=1000).profile, 1000)
            found.append(peer)
        except FileNotFoundError:
            section.without(peer.name, "it wrote no profile to {out}")
        except (measure.Failed, OSError, ValueError, AssertionError, EOFError) as e:
            section.without(peer.name, f"no profile that can be read here: {e}")
    return found


def symbols_of(program):
    """(starts, names) of the functions of a program that is not moved when it is loaded."""
    out = subprocess.run(["nm", "--defined-only", "-n", program], capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in out.splitlines()]
    return [int(a, 16) for a, _, _ in found], [name for _, _, name in found]


def _pprof(path):
    import pprof  # pylint: disable=import-outside-toplevel
    try:
        return [Stack(s.count, s.ns, frozenset(f.name for f in s.frames), s.labels.get("tid", 0))
                for s in pprof.load(path).samples]
    except (IndexError, KeyError, ValueError) as e:
        raise measure.Failed(f"{path.name} is no profile of pprof's: {e}") from e


def _perf_script(path, fields):
    script = subprocess.run(["perf", "script", "-F", fields, "-i", path], capture_output=True, check=False,
                            timeout=PERF_LIMIT_S, text=True, errors="replace")
    if script.returncode != 0:
        raise measure.Failed("perf script: " + (script.stderr.strip().splitlines() or ["failed"])[-1])
    return script.stdout


def _perf(path, hz):
    stacks = []
    for block in _perf_script(path, "tid,ip,sym").split("\n\n"):
        tid, *frames = block.strip("\n").split("\n")
        if re.fullmatch(r"\s*\d+\s*", tid):
            names = frozenset(frame.split(None, 1)[1] for frame in frames if len(frame.split(None, 1)) == 2)
            stacks.append(Stack(1, 1e9 / hz, names, int(tid)))
    return stacks


def gperftools_records(path):
    """(The period in µs, (count, addresses) of each record.) The file is words: a header of five, of which the fourth is the
    period; then records of count, length and addresses, until a count of 0."""
    data = path.read_bytes()
    words = struct.unpack_from(f"<{len(data) // 8}Q", data)
    if words[:3] != (0, 3, 0):
        raise measure.Failed("its profile is of no known format")

    def records(at=5):
        while at + 2 < len(words) and words[at]:
            length = words[at + 1]
            yield words[at], words[at + 2:at + 2 + length]
            at += 2 + length
    return words[3], records()


def _gperftools(path, symbols):
    period, records = gperftools_records(path)
    return [Stack(n, n * period * 1000.0, frozenset(_names(addresses, symbols)), 0) for n, addresses in records]


def _names(addresses, symbols):
    for address in addresses if symbols else ():
        i = bisect.bisect_right(symbols[0], address) - 1
        if i >= 0:
            yield symbols[1][i]
