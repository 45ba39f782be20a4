"""Real programs with work for some seconds of CPU time."""

import random
import subprocess
from pathlib import Path

WORK = Path(__file__).resolve().parent.parent / "programs"
XZ_BYTES_A_SECOND = 600_000


def _said(command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def python(_, seconds):
    return ["/usr/bin/python3", WORK / "work.py", seconds]


def node(bench, seconds):
    """The program proper: the name may be a script."""
    found = bench.tool("node")
    if not found:
        return None
    told = _said([found, "-p", "process.execPath"])
    return [told, WORK / "work.js", seconds] if told.startswith("/") else None


def cc1plus(bench, seconds):
    """The compiler proper, of a source whose headers are in it; only looked through if a second is enough. Its garbage
    collector is kept from running: a few samples in it, thousands of frames deep, would be most of what is compared."""
    gxx = bench.tool("g++")
    if not gxx:
        return None
    source = bench.scratch / "work.ii"
    little = [] if seconds > 1 else ["-fsyntax-only"]
    if not source.exists():
        subprocess.run([gxx, "-std=c++17", "-E", WORK / "work.cc", "-o", source], check=True)
    return [_said([gxx, "-print-prog-name=cc1plus"]), "-quiet", "-O2", "-std=c++17", "-fpreprocessed",
            "--param=ggc-min-heapsize=4194304", *little, source, "-o", "/dev/null"]


def xz(bench, seconds):
    found = bench.tool("xz")
    if not found:
        return None
    text = bench.scratch / f"text-{seconds}"
    if not text.exists():
        dice, words = random.Random(1), [str(n * 7919) for n in range(2000)]
        size = int(seconds * XZ_BYTES_A_SECOND)
        text.write_text(" ".join(dice.choices(words, k=size // 8))[:size], encoding="ascii")
    return [found, "-T1", "-6", "-c", text]


ALL = {"CPython": python, "cc1plus": cc1plus, "node": node, "xz": xz}
