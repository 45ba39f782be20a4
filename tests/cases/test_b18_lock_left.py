"""B18: signal handlers jump away, all the time, from a thread that takes its stack's lock all the time.

Who holds the lock in normal context has all signals blocked: no handler finds it held, none leaves it behind. (That a lock
which was left nevertheless is taken over is unit.agent.stack_locked's.)
"""

import harness
import pprof
import under_barriers


@under_barriers.modes
def test_no_lock_is_left_by_a_jump(out, mode):
    p = under_barriers.run([harness.program("lock_left"), "300"], out, mode)
    told = under_barriers.assert_used(p, mode)
    assert told["locked"] == 0, told
    assert p.cum()["unwind_deep"] > 30e6
    # A collector that does not come round in time says nothing of locks.
    p.samples = [s for s in p.samples if pprof.reason(s) != "[buffer full]"]
    whole, broken = pprof.complete_share([p])
    assert whole > 0.95, broken.most_common(5)
