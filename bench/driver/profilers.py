"""The profilers that are compared: how a command is run under each, and whether this machine has it."""

import glob
import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Profiler:
    """`command(out, hz)` gives what stands before a command and the variables that it gets, for a profile in `out`.
    Those of a profiler that is preloaded are the command's alone."""
    name: str
    prefix: list = field(default_factory=list)
    variables: dict = field(default_factory=dict)
    absent: str = ""  # why it cannot be run here
    is_peer: bool = True
    pinned: dict = field(default_factory=dict)  # variables besides, where the command is kept to one processor

    def command(self, out, hz):
        def filled(text):
            return str(text).replace("{out}", str(out)).replace("{hz}", str(hz))
        return [filled(a) for a in self.prefix], {k: filled(v) for k, v in self.variables.items()}

    def writes(self):
        """Whether it is told where its profile goes."""
        return any("{out}" in str(text) for text in [*self.prefix, *self.variables.values()])

    def preloads(self):
        return "LD_PRELOAD" in self.variables


class BadPeer(Exception):
    """What is wrong with a --peer, in one line."""


def peer(text):
    """NAME=LIBRARY[,VARIABLE=VALUE]..., in whose values {out} is the profile's path and {hz} the rate."""
    name, equals, rest = text.partition("=")
    library, *pairs = rest.split(",")
    if not name or not equals or not library:
        raise BadPeer(f"--peer takes NAME=LIBRARY[,VARIABLE=VALUE]..., not {text!r}")
    if not Path(library).is_file():
        raise BadPeer(f"--peer {name}: {library} is not a file")
    if set(library) & set(" :"):
        raise BadPeer(f"--peer {name}: a path with a space or a colon in it cannot be preloaded")
    variables = {}
    for pair in pairs:
        variable, equals, value = pair.partition("=")
        if not variable or not equals:
            raise BadPeer(f"--peer {name}: {pair!r} is not VARIABLE=VALUE")
        variables[variable] = value
    return Profiler(name, variables={"LD_PRELOAD": str(Path(library).absolute()), **variables})


def _library(pattern):
    found = sorted(glob.glob(f"/usr/lib/*/{pattern}") + glob.glob(f"/usr/local/lib/{pattern}"))
    return found[0] if found else ""


def _perf(name, graph):
    perf = shutil.which("perf")
    absent = "" if perf else "perf is not installed (Debian: linux-perf)"
    return Profiler(name, [perf, "record", "-q", "-e", "cpu-clock", "-F", "{hz}", "-g", "--call-graph", graph, "-o", "{out}",
                           "--"], absent=absent)


def known(build):
    """{name: Profiler} of all that the driver knows; peers by path are added to it."""
    gperftools = _library("libprofiler.so.0")
    floor = build / "bench" / "peers" / "floor.so"
    all_known = [
        Profiler("stile", variables={"LD_PRELOAD": build / "lib" / "libstile.so", "PROFILE": "{out}",
                                     "PROFILE_HZ": "{hz}"}, is_peer=False,
                 pinned={"PROFILE_COLLECTOR": build / "bench" / "unpinned"}),
        Profiler("floor", variables={"LD_PRELOAD": floor, "FLOOR_HZ": "{hz}"}, is_peer=False,
                 absent="" if floor.exists() else f"{floor} is not built"),
        Profiler("gperftools", variables={"LD_PRELOAD": gperftools, "CPUPROFILE": "{out}", "CPUPROFILE_FREQUENCY": "{hz}"},
                 absent="" if gperftools else "gperftools is not installed (Debian: libgoogle-perftools4)"),
        _perf("perf fp", "fp"),
        _perf("perf dwarf", "dwarf"),
    ]
    return {p.name: p for p in all_known}
