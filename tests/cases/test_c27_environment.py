"""C27: a marker in the environment broke children. PROFILE itself is never rewritten, whoever starts whom."""

import json
import os

import harness
import pprof

TELLS = ("import json, os, sys\n"
         "end = os.times().user + 0.1\n"
         "while os.times().user < end: pass\n"
         "print(json.dumps([os.getpid(), dict(os.environ)]), flush=True)\n"
         "if sys.argv[1:]: os.execv(sys.argv[1], sys.argv[1:])\n")


def told(r):
    return [json.loads(line) for line in harness.lines(r.out)]


def without(environment, *names):
    return sorted(e for e in environment if e.partition("=")[0] not in names)


def look(**options):
    r = harness.run([harness.program("look")], timeout=60, **options)
    assert r.status == 0, r
    return json.loads(r.out)


def test_one_variable_more(out):
    """STILE_ROOT."""
    plain, seen = look(), look(profile=out)
    added = ("PROFILE", "PROFILE_HZ", "PROFILE_BARRIERS", "LD_PRELOAD", "STILE_ROOT")
    assert without(seen["environment"], *added) == without(plain["environment"])
    values = dict(e.split("=", 1) for e in seen["environment"])
    for name, value in harness.profile_environment(out).items():
        assert values[name] == value
    assert sum(e.startswith("STILE_ROOT=") for e in seen["environment"]) == 1


def test_five_generations(out):
    """By exec and by fork and exec in turn: each sees what the first one was given, and each has its file."""
    me = [harness.PYTHON, "-c", TELLS]
    shell = ["/bin/sh", "-c", '"$@"; :', "sh"]
    argv = [*me, *shell, *me, *me, *shell, *me]
    r = harness.run(argv, profile=out)
    assert r.status == 0 and r.err == b""
    given = harness.profile_environment(out)
    seen = told(r)
    assert len(seen) == 4
    for _, environment in seen:
        assert {name: environment[name] for name in given} == given
    assert len({environment["STILE_ROOT"] for _, environment in seen}) == 1
    pids = {pid for pid, _ in seen}

    def profiled():
        return {s.labels["pid"] for f in out.parent.glob("*.pb.gz") for s in pprof.load(f).samples}

    assert harness.wait_until(lambda: profiled() >= pids, 20), (pids, profiled())
    for f in out.parent.glob("*.pb.gz"):
        pprof.valid(f)


def test_children_with_other_values(out, tmp_path):
    """What a program sets for a child counts: nothing, another file, another purpose."""
    other = out.with_name("other.pb.gz")
    code = ("import os, subprocess, sys\n"
            "for value in (None, sys.argv[1], 'release', ''):\n"
            "    env = {k: v for k, v in os.environ.items() if k != 'PROFILE'}\n"
            "    if value is not None: env['PROFILE'] = value\n"
            "    r = subprocess.run(sys.argv[2:], env=env)\n"
            "    print(r.returncode, flush=True)\n")
    r = harness.run([harness.PYTHON, "-c", code, other, harness.program("ending"), "100", "exit"], profile=out)
    assert r.same == (0, b"working\ndone\n7\n" * 4, b"")
    pprof.valid(out)
    files = harness.wait_until(lambda: list(out.parent.glob("other*.pb.gz")), 10)
    assert files and len(files) == 1
    assert pprof.valid(files[0]).cum()["work_before_end"] > 0
    assert {f for f in out.parent.iterdir() if f != out} == set(files)


def test_a_child_without_any_environment(out):
    plain = harness.run(["/usr/bin/env", "-i", harness.program("ending"), "50", "exit"])
    r = harness.run(["/usr/bin/env", "-i", harness.program("ending"), "50", "exit"], profile=out)
    assert r.same == plain.same == (7, b"working\ndone\n", b"")


def test_a_root_that_is_gone(out):
    """A variable kept by a service that started long ago, and what is nobody's: a collector of its own, and no word."""
    for root in ("stile-0123456789abcdef0123456789abcdef@1", "", "x", "@", "a" * 5000, "stile-\x01@\xff"):
        r = harness.run([harness.program("ending"), "50", "exit"], profile=out, env={"STILE_ROOT": root})
        assert r.same == (7, b"working\ndone\n", b""), root
        files = harness.wait_until(lambda: list(out.parent.glob("*.pb.gz")), 10)
        assert files and len(files) == 1, root
        pprof.valid(files[0])
        os.unlink(files[0])
