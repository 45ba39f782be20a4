"""C06: profiles are started, written and stopped by several threads at once, under ticks: nobody waits
for a lock of a handler's."""

import harness
import pprof

PROFILES = 4


def test_from_several_threads(out, setting):
    r = harness.run([harness.program("starts"), out.parent, setting.hz, PROFILES], env=setting.environment, timeout=120)
    assert r.same == (0, b"as it has to be\n", b"")
    found = sorted(out.parent.iterdir())
    assert len(found) >= PROFILES and all(f.name.endswith(".pb.gz") for f in found), found
    worked = sum(pprof.valid(f).cum()["work_beside"] for f in found)
    assert worked > 0 or setting.hz < harness.TICK_HZ  # they are short
