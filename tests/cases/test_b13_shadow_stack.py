"""B13: where the kernel says that the processor has a shadow stack, no barrier is placed."""

import re

import pytest

import harness
import pprof

STATUS = "0x5005"  # ARCH_SHSTK_STATUS
ROUNDS = 400


@pytest.mark.parametrize("features,on", [(1, True), (2, False)])
def test_kernel_says_so(features, on, out, tmp_path):
    """Which no machine here does: its answer is put in the place of the kernel's."""
    log = tmp_path / "calls"
    answer = f"inject=arch_prctl:retval=0:poke_exit=@arg2={features:02x}00000000000000:when=2"  # libc's own is the first
    env = {**harness.profile_environment(out, 10000), "PROFILE_BARRIERS": "all"}
    argv = [harness.tool("strace"), "-o", log, "-e", "trace=arch_prctl", "-e", answer]
    for assignment in harness.assignments(env):
        argv += ["-E", assignment]
    r = harness.run([str(a) for a in (*argv, harness.program("callers"), "leaf", ROUNDS)], timeout=60)
    assert r.status == 0, r
    assert re.search(rf"arch_prctl\({STATUS}.* = 0 \(INJECTED", log.read_text()), log.read_text()
    told = pprof.barriers(pprof.valid(out))
    assert told["frames"] > 1000, told
    assert (told["placed"] == 0) == on, told
