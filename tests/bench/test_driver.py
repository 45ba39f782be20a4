"""What the driver makes of runs: ratios, what ran beside a command, and what it is told."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from driver import measure, profilers, report

NAN = float("nan")


@pytest.fixture
def bench(build, tmp_path):
    return SimpleNamespace(scratch=tmp_path, environment=dict(os.environ), program=lambda name: build / "bench" / name)


def in_driver(code, build, tmp_path):
    """Runs code in a process of its own."""
    prelude = ("import os; from pathlib import Path; from types import SimpleNamespace; from driver import measure\n"
               f"bench = SimpleNamespace(scratch={str(tmp_path)!r}, environment=dict(os.environ), "
               f"program=lambda name: Path({str(build)!r}) / 'bench' / name)\n")
    r = subprocess.run([sys.executable, "-B", "-c", prelude + code], capture_output=True, timeout=120, check=False,
                       env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert r.returncode == 0, r.stderr.decode()
    return json.loads(r.stdout)


def test_ratios_are_taken_round_by_round():
    f = measure.ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0])  # a round of ten times the load is one on both sides
    assert (f.median, f.n) == (2.0, 3) and f.low == 2.0 and f.high == 2.5


def test_a_round_without_a_result_does_not_count():
    assert measure.ratio([2.0, 1.0], [1.0, 0.0]).n == 1
    assert math.isnan(measure.Figure.of([NAN]).median)


def test_sides_take_turns():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    results = measure.in_turn(sides, 3, warm=False)
    assert "".join(order) == "abcbcacab"
    assert {name: len(r) for name, r in results.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_a_command_used(bench, build, tmp_path):
    spin = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint('done')"
    code = (f"r = measure.run(bench, ['/usr/bin/python3', '-S', '-c', {spin!r}])\n"
            "import json; print(json.dumps([r.status, r.cpu, r.wall, r.rss, r.out.decode()]))")
    status, cpu, wall, rss, out = in_driver(code, build, tmp_path)
    assert (status, out) == (0, "done\n")
    assert cpu >= 0.2 and wall > 0 and rss > 1 << 20
    assert bench


def test_what_runs_beside_a_command_is_its_cost(build, tmp_path):
    """As a collector: nobody's child any more when the command ends."""
    spin = ("import os, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        end = time.process_time() + 0.3\n"
            "        while time.process_time() < end: pass\n"
            "    os._exit(0)\n"
            "os.wait()")
    code = (f"r = measure.run(bench, ['/usr/bin/python3', '-S', '-c', {spin!r}])\n"
            "import json; print(json.dumps([r.cpu, r.beside]))")
    cpu, beside = in_driver(code, build, tmp_path)
    assert beside >= 0.3 and cpu < 0.3


LEAVES = """
import os, sys, time
def spin(s):
    end = time.process_time() + s
    while time.process_time() < end: pass
def cpus(): print(min(os.sched_getaffinity(0)), len(os.sched_getaffinity(0)), flush=True)
cpus()
spin(float(sys.argv[1]))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.sched_setaffinity(0, range(os.cpu_count()))
        time.sleep(0.2)
        if len(os.sched_getaffinity(0)) > 1: print("free", flush=True)
        spin(float(sys.argv[2]))
    os._exit(0)
os.wait()
"""


def test_each_side_at_once_has_its_own_times(build, tmp_path):
    """And what each has left behind is its own as well, which is free to go elsewhere."""
    code = (f"argv = lambda a, b: (['/usr/bin/python3', '-S', '-c', {LEAVES!r}, a, b], None, 0, {{}})\n"
            "before = os.sched_getaffinity(0)\n"
            "runs = measure.at_once(bench, {'a': argv(0.1, 0.6), 'b': argv(0.4, 0.2)})\n"
            "assert os.sched_getaffinity(0) == before\n"
            "overlap = max(r.start for r in runs.values()) < min(r.end for r in runs.values())\n"
            "import json; print(json.dumps([overlap, max(before), len(before)] + [[r.cpu, r.beside, r.out.decode().split()] "
            "for r in map(runs.get, 'ab')]))")
    overlap, last, n, a, b = in_driver(code, build, tmp_path)
    assert overlap
    for (cpu, beside, said), (least, least_beside) in ((a, (0.1, 0.6)), (b, (0.4, 0.2))):
        assert least <= cpu < least + 0.35 and least_beside <= beside < least_beside + 0.35
        assert said[:2] == [str(last), "1"] and (n == 1 or said[2:] == ["free"])


def test_a_side_that_fails_fails_all_at_once_and_leaves_nothing(build, tmp_path):
    code = ("import json\nbegan = __import__('time').monotonic()\n"
            "try:\n    measure.at_once(bench, {'bad': (['/nonexistent/command'], None, 0, {}), "
            "'good': (['/bin/sleep', '0.3'], None, 0, {})})\n    text = ''\n"
            "except measure.Failed as e:\n    text = str(e)\n"
            "print(json.dumps([text, __import__('time').monotonic() - began]))")
    text, took = in_driver(code, build, tmp_path)
    assert "/nonexistent/command" in text and took >= 0.3


LOOK = """
look() {
    for p in /proc/[0-9]*; do
        read -r name < "$p/comm" && [ "$name" = stile ] || continue
        grep -q "^PPid:[[:space:]]*$PPID$" "$p/status" && grep Cpus_allowed_list "$p/status"
    done 2>/dev/null
}
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do # it has its name a moment after it was started
    seen=$(look)
    [ -z "$seen" ] || break
    sleep 0.2
done
echo "$seen"
sleep 0.2
"""


def test_a_collector_is_not_kept_to_the_programs_processor(build, tmp_path):
    """The program looks for it: what it leaves behind has its own parent."""
    code = ("from driver import profilers\n"
            "stile = profilers.known(Path(str(bench.program('launch'))).parent.parent)['stile']\n"
            f"runs = measure.at_once(bench, {{'stile': (['/bin/sh', '-c', {LOOK!r}], stile, 100, {{}}), "
            "'plain': (['/bin/sleep', '0.1'], None, 0, {})})\n"
            "r = runs['stile']\n"
            "import json; print(json.dumps([max(os.sched_getaffinity(0)), r.out.decode(), r.profile_bytes]))")
    last, seen, profile = in_driver(code, build, tmp_path)
    assert profile > 0
    if os.sched_getaffinity(0) - {last}:
        lists = [line.split()[1] for line in seen.splitlines() if line]
        assert len(lists) == 1 and str(last) not in lists, seen


def test_variables_are_the_commands_alone(build, tmp_path):
    code = ("from driver.profilers import Profiler\n"
            "p = Profiler('p', variables={'SEEN': '{out} at {hz}'})\n"
            "r = measure.run(bench, ['/usr/bin/env'], p, hz=250)\n"
            "import json; print(json.dumps([str(r.profile), r.out.decode()]))")
    profile, out = in_driver(code, build, tmp_path)
    assert f"SEEN={profile} at 250\n" in out


@pytest.mark.parametrize("argv, words", [(["/nonexistent/command"], "/nonexistent/command"),
                                         (["/usr/bin/python3", "-c", "raise SystemExit(3)"], "")])
def test_a_command_that_fails(argv, words, build, tmp_path):
    """What could not be started says so in one line; what ended badly has its status."""
    code = (f"import json\ntry:\n    print(json.dumps(['', measure.run(bench, {argv!r}).status]))\n"
            "except measure.Failed as e:\n    print(json.dumps([str(e), None]))")
    text, status = in_driver(code, build, tmp_path)
    assert "\n" not in text
    assert (words in text and status is None) if words else status == 3


def test_peer_by_path(build):
    library = build / "lib" / "libstile.so"
    p = profilers.peer(f"mine={library},OUT={{out}},RATE={{hz}}")
    prefix, variables = p.command("/there/profile.pb.gz", 100)
    assert (p.name, prefix) == ("mine", [])
    assert variables == {"LD_PRELOAD": str(library), "OUT": "/there/profile.pb.gz", "RATE": "100"}


@pytest.mark.parametrize("text", ["x", "plain=/etc/passwd", "Go=/etc/passwd", "stile=/etc/passwd",
                                  "=lib", "x=", "x=/nonexistent.so", "x=/etc/passwd,word", "x=/etc/passwd,=1"])
def test_bad_peer(text, source, build):
    r = subprocess.run([sys.executable, "-B", source / "bench" / "run.py", "--build", build, "--peer", text, "startup"],
                       capture_output=True, timeout=60, check=False)
    assert r.returncode == 2 and b"--peer" in r.stderr.splitlines()[-1], r


def test_build_that_cannot_be_preloaded_from(source, build, tmp_path):
    """Its runs would be plain ones, and ratios of 1."""
    (tmp_path / "of two" / "lib").mkdir(parents=True)
    (tmp_path / "of two" / "lib" / "libstile.so").write_bytes((build / "lib" / "libstile.so").read_bytes())
    r = subprocess.run([sys.executable, "-B", source / "bench" / "run.py", "--build", tmp_path / "of two", "startup"],
                       capture_output=True, timeout=60, check=False)
    assert r.returncode == 2 and b"preloaded" in r.stderr.splitlines()[-1], r


def test_targets():
    s = report.Section("q", "what")
    s.add("a", "stile", "plain", measure.Figure.of([1.2, 1.3, 1.4]), target=1.25)
    s.add("b", "stile", "plain", measure.Figure.of([2e5]), target=1.5e5, least=True)
    s.add("c", "stile", "plain", measure.Figure.of([]), target=1.0)
    s.add("d", "stile", "plain", measure.Figure.of([1.0]), seconds=NAN)
    s.without("perf", "it is not here")
    s.without("perf", "it is not here")
    s.without("perf", "nor there")
    assert s.left_out == [("perf", "it is not here"), ("perf", "nor there")]
    assert [r.met for r in s.rows] == [False, True, False, None]  # what could not be measured is not met
    text = s.text()
    assert "MISSED" in text and "≤ 1.25" in text and "not measured: perf: it is not here" in text
    assert "MISSED" in s.markdown()


def test_results_are_json(tmp_path):
    s = report.Section("q", "what")
    s.add("d", "stile", "plain", measure.Figure.of([]), seconds=NAN)
    s.plot("p", "t", "x", "y", {"line": [(1, 2.0), (10, 3.0)]})
    report.write_json(tmp_path / "r.json", {"kernel": "k"}, [s])
    found = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert found["questions"]["q"]["rows"][0]["median"] is None
    report.write_plot(tmp_path / "p.svg", s.plots[0])
    report.write_plot(tmp_path / "again.svg", s.plots[0])
    assert (tmp_path / "p.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()


@pytest.mark.parametrize("value, text", [(1.2345, "1.23"), (123.4, "123"), (0.01234, "0.0123"), (12345.6, "12346"), (0, "0"),
                                         (NAN, "-")])
def test_numbers(value, text):
    assert report.number(value) == text
