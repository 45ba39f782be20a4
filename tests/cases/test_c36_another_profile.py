"""C36: PROFILE is set for another purpose, as cargo does: silence, and nothing that the program could notice."""

import functools
import json

import pytest

import harness

OTHERWISE = ("LD_PRELOAD", "PYTEST_CURRENT_TEST", harness.MARK)  # different in each test


def without(environment, *names):
    return sorted(e for e in environment if e.partition("=")[0] not in names)


@functools.lru_cache(maxsize=None)
def plain():
    r = harness.run([harness.program("look")], timeout=60)
    assert r.status == 0, r
    return r.out


@pytest.mark.parametrize("env", [{"PROFILE": "release"}, {"PROFILE": ""}, {"PROFILE": "1"},
                                 {"PROFILE": "debug", "PROFILE_HZ": "nonsense"}, {"PROFILE_HZ": "nonsense"},
                                 {"PROFILE": "out.pb.gz.tmp"}, {"PROFILE": "pb"}, {"PROFILE": "/dev/full"},
                                 {"PROFILE_SIZE": "3", "PROFILES": "x"}], ids=str)
def test_not_asked_for(out, mark, setting, env):
    """Not one thread, handler, child, descriptor, timer or variable more, and not a word."""
    env = {**setting.environment, **env}
    with harness.Program([harness.program("look")], env={**env, "LD_PRELOAD": harness.LIBRARY}, cwd=out.parent) as app:
        assert harness.collectors(mark) == []
        r = app.wait(60)
    seen, expected = json.loads(r.out), json.loads(plain())
    assert r.err == b""
    assert without(seen.pop("environment"), *OTHERWISE, *env) == without(expected.pop("environment"), *OTHERWISE)
    for view in (seen, expected):  # the output files' names differ
        view["fds"] = [(f["fd"], f["cloexec"]) for f in view["fds"]]
    assert seen == expected
    assert list(out.parent.iterdir()) == []


def test_what_it_builds_is_silent_too(out, setting):
    """A build tool's variable goes through a shell and a program linked with the library."""
    env = {**setting.environment, "PROFILE": "release", "LD_PRELOAD": harness.LIBRARY}
    script = 'echo "$PROFILE"; "$0" work1; env -u LD_PRELOAD "$0" work1; echo "$PROFILE"'
    r = harness.run(["/bin/sh", "-c", script, harness.program("api")], env=env, cwd=out.parent)
    assert r.same == (0, b"release\nrelease\n", b"")
    assert list(out.parent.iterdir()) == []
