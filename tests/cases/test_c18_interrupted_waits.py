"""C18: a signal breaks off poll, select and epoll_wait whatever SA_RESTART says; the program must not notice."""

import harness
import pprof


def test_no_wait_is_broken_off(out):
    plain = harness.run([harness.program("poller")])
    r = harness.run([harness.program("poller")], profile=out, hz=harness.TICK_HZ)
    assert r.same == plain.same
    assert r.out == b"poll 0\nppoll 0\nselect 0\nepoll_wait 0\nnanosleep 0\npselect 0\n"
    assert pprof.valid(out).ns > 0.1e9
