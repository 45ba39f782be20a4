"""C04: tables that lie or are rubbish, stacks that cannot be read or are not all there: nothing faults, and no time
is lost."""

import random
import re
import shutil
import subprocess

import pytest

import harness
import pprof
from whole import assert_has

pytestmark = pytest.mark.measures


def sections(path):
    """Name to (offset, size) in the file."""
    said = subprocess.run([harness.tool("readelf"), "-SW", path], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\] (\.\S+) +\S+ +[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+)", said)
    return {name: (int(offset, 16), int(size, 16)) for name, offset, size in found}


def spoil(path, seed):
    """Overwrites some or all of a library's unwind tables, the index and its entries by turns."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for name in ((".eh_frame",), (".eh_frame_hdr",), (".eh_frame", ".eh_frame_hdr"))[seed % 3]:
        offset, size = sections(path)[name]
        for i in range(offset, offset + size) if seed < 3 else chance.sample(range(offset, offset + size), size // 8):
            data[i] = chance.randrange(256)
    path.write_bytes(data)


def test_broken_stacks(out, tmp_path):
    plugins = [tmp_path / f"plugin{seed}.so" for seed in range(9)]
    for seed, plugin in enumerate(plugins):
        shutil.copy(harness.program("plugin.so"), plugin)
        spoil(plugin, seed)
    argv = [harness.program("broken_stacks"), *plugins]
    plain = harness.run(argv, timeout=60)
    r = harness.run(argv, profile=out, timeout=60)
    assert r.same == plain.same == (0, b"done\n", b"")
    p = pprof.valid(out)
    # The function itself is always known.
    assert_has(p, "work_below_broken", 9 * 7 * 6e6)
    assert_has(p, "work_below_hole", 120e6, 0.7)  # few samples, and the last one where the thread ends
    assert_has(p, "work_in_plugin", 9 * 30e6)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.03, abs=60e6)
