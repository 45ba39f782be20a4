"""C10: ticks that are let in after the profile has been stopped, and such signals from others, kill nobody."""

import harness
import pprof

ROUNDS = 3


def test_after_the_stop(out, setting):
    argv = [harness.program("late_ticks"), "stopped", out, setting.hz, ROUNDS]
    r = harness.run(argv, env=setting.environment, timeout=120)
    assert r.same == (0, b"%d\n" % (6 * ROUNDS), b"")
    assert pprof.valid(out, timeout=0).ns > 0
