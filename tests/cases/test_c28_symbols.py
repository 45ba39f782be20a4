"""C28: an unwinder that is preloaded takes `_Unwind_*` from the program, and pthread_exit skips destructors. The agent needs
libc alone, and takes nothing that it is not known to take."""

import json
import os
import re

import pytest

import harness
import pprof

BINDING = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: \w+ symbol `([^']+)'")
PRELOAD = {"LD_PRELOAD": str(harness.LIBRARY)}


def test_preloaded_library_needs_libc_alone(setting):
    """In the program's address space there is one library more."""
    code = "print(sorted({l.split()[-1] for l in open('/proc/self/maps') if '.so' in l}))"
    plain = harness.run([harness.PYTHON, "-I", "-c", code])
    r = harness.run([harness.PYTHON, "-I", "-c", code], env={**PRELOAD, **setting.environment})
    more = set(json.loads(r.out.replace(b"'", b'"'))) - set(json.loads(plain.out.replace(b"'", b'"')))
    assert [os.path.basename(m).split(".so")[0] for m in more] == ["libstile"]


def exported():
    """What the library is known to show."""
    lists = [harness.SOURCE / "profiler" / "agent" / name for name in ("libstile.exports", "libstile.map")]
    words = set(re.findall(r"^\s*(\w+);?$", "\n".join(path.read_text() for path in lists), re.M))
    assert "pthread_create" in words and "pthread_cond_wait" in words
    return words


def test_where_symbols_bind(out, tmp_path):
    """The unwinder's functions to libgcc's, or whichever the program has; to ours only those of the list."""
    log = tmp_path / "log"
    r = harness.run([harness.program("thread_ends_cc"), "50"], profile=out,
                    env={"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": log, "LD_BIND_NOW": "1"})
    assert r.status == 0 and r.err == b"", r
    said = "".join(p.read_text(errors="replace") for p in tmp_path.glob("log.*"))
    bound = {m.groups() for m in BINDING.finditer(said)}
    library = str(harness.LIBRARY)
    unwinder = [(by, to, name) for by, to, name in bound if name.startswith("_Unwind_") and by != library]
    assert len(unwinder) >= 3, unwinder
    assert [b for b in unwinder if "libgcc_s.so" not in b[1]] == []
    ours = {name for by, to, name in bound if to == library and by != library}
    assert "pthread_create" in ours and "pthread_exit" not in ours
    assert {name for name in ours if not name.startswith("stile_")} <= exported()


@pytest.mark.parametrize("name", ["thread_ends_c", "thread_ends_unwound", "thread_ends_cc"])
def test_threads_that_end_clean_up(out, name):
    """By pthread_exit and by each kind of cancellation: every cleanup handler, every destructor, each key's."""
    plain = harness.run([harness.program(name), "150"])
    r = harness.run([harness.program(name), "150"], profile=out)
    assert r.status == plain.status == 0 and r.err == plain.err == b"", (plain, r)
    pprof.valid(out)
