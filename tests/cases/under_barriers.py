"""A program's run under barriers, against the same run without Stile. What the cases B01 to B18 share."""

import pytest

import harness
import pprof

HZ = 10000
MODES = ["all", "auto"]
modes = pytest.mark.parametrize("mode", MODES)


def environment(mode, env=None):
    return {"PROFILE_BARRIERS": mode, **(env or {})}


def run(argv, out, mode, hz=HZ, env=None, timeout=60):
    """Runs a program plainly, then under barriers: the same output, errors and status. Returns its profile."""
    plain = harness.run(argv, env=env, timeout=timeout)
    barred = harness.run(argv, profile=out, hz=hz, env=environment(mode, env), timeout=timeout)
    assert barred.same == plain.same, (plain, barred)
    return pprof.valid(out)


def run_until_used(command, out, mode):
    """Runs a program that takes as many milliseconds as `command` is given to say, longer each time, until it had barriers:
    a short one is over before a collector that got no processor has told its rules. Returns the profile of the last run."""
    for ms in (20, 80, 320, 1280):
        p = run(command(ms), out, mode)
        if mode != "all" or (pprof.barriers(p) or {}).get("saved", 0) > 0:
            break
    return p


def assert_used(p, mode):
    """With `all` barriers did what they are for: a case that passes because there were none has not passed."""
    told = pprof.barriers(p)
    assert told, p.comments
    assert told["off"] is None, told
    if mode == "all":
        assert told["placed"] > 0 and told["hit"] > 0 and told["saved"] > 0, told
    return told


def assert_off(p, why):
    """They switched themselves off, and the profile says why: a part of it is given."""
    told = pprof.barriers(p)
    assert told and told["off"] and why in told["off"], p.comments
    return told
