"""`stile record` follows the tree of processes, and makes one file of it, with labels pid and comm."""

import json
import os
import re
import signal
import subprocess

import pytest

import harness
import pprof


def record(out, argv, *options, **kwargs):
    return harness.run([harness.STILE, "record", "-F", "1000", "-o", out, *options, "--", *argv], **kwargs)


def forker(out, *options):
    """The forker program's children: by what they do, and all files."""
    r = record(out, [harness.program("forker"), harness.program("split"), "1", "300"], *options)
    assert r.status == 9, r
    return r, {f.name: pprof.valid(f) for f in out.parent.iterdir()}


def stack_names(p):
    return {f.name for s in p.samples for f in s.frames if not f.name.startswith("[")}


@pytest.fixture(scope="module", name="families")
def both(tmp_path_factory):
    merged = tmp_path_factory.mktemp("merged") / "out.pb.gz"
    apart = tmp_path_factory.mktemp("apart") / "out.pb.gz"
    return forker(merged), forker(apart, "--no-merge")


def test_one_file(families):
    (r, merged), (_, apart) = families
    assert list(merged) == ["out.pb.gz"]
    assert len(apart) > 5
    p = merged["out.pb.gz"]
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=20e6), p.comments
    pids = {s.labels["pid"] for s in p.samples}
    assert len(pids) >= len(apart) and all(s.labels["comm"] for s in p.samples)
    assert {s.labels["comm"] for s in p.samples} == {"forker", "split"}


def test_each_process_has_its_own_under_its_pid(families):
    """The same work, whether in one file or in many."""
    (_, merged), (_, apart) = families
    p = merged["out.pb.gz"]
    for function in ("work_in_parent", "work_in_child", "work_in_grandchild"):
        per_pid = sorted(p.cum(pid=pid)[function] for pid in {s.labels["pid"] for s in p.samples})
        files = sorted(f.cum()[function] for f in apart.values())
        many = [ns for ns in per_pid if ns], [ns for ns in files if ns]
        assert len(many[0]) == len(many[1]) and many[0] == pytest.approx(many[1], rel=0.1), function


def test_names_are_the_same(families):
    (_, merged), (_, apart) = families
    mine = {"work_in_parent", "work_in_child", "work_in_grandchild", "spin_a", "spin_b", "spin_c", "main", "_start"}
    assert mine <= stack_names(merged["out.pb.gz"])
    assert mine <= set().union(*(stack_names(p) for p in apart.values()))
    share, broken = pprof.complete_share(merged.values())
    assert share > 0.98, broken.most_common(5)


def test_a_file_is_one_mapping(families):
    """However many processes had it, and wherever; and no two lie at the same place."""
    (_, merged), _ = families
    mappings = merged["out.pb.gz"].pb.mapping
    names = [merged["out.pb.gz"].text(m.filename) for m in mappings]
    assert names[0] == harness.program("forker")
    assert len(names) == len(set((n, m.file_offset) for n, m in zip(names, mappings))), names
    ranges = sorted((m.memory_start, m.memory_limit) for m in mappings)
    assert all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:])), ranges


def test_images_of_one_process(out):
    """What a process was before it executed something else has its own name, under the same pid."""
    code = f"import os\nfor i in range(3000000): i * i\nos.execv({harness.program('split')!r}, ['split', '1', '400'])\n"
    r = record(out, [harness.PYTHON, "-c", code])
    assert r.status == 0
    p = pprof.valid(out)
    by_comm = p.by_label("comm")
    assert len({s.labels["pid"] for s in p.samples}) == 1 and set(by_comm) == {"python3", "split"}
    assert by_comm["split"] == pytest.approx(400e6, rel=0.1) and by_comm["python3"] > 50e6


def test_names_of_run_time_code(out, tmp_path):
    """Each process's code is its own, though it lies at any address of another's."""
    for name in ("first_work", "second_work"):
        (tmp_path / f"{name}.js").write_text(
            f"function {name}(n) {{ let s = 0; for (let i = 0; i < n; i++) s += i % 7; return s; }}\n"
            f"for (let k = 0; k < 300; k++) {name}(1000000);\n")
    node = f"{harness.tool('node')} --perf-basic-prof {tmp_path}"
    r = record(out, ["/bin/sh", "-c", f"{node}/first_work.js & {node}/second_work.js; wait"], timeout=120, cwd=tmp_path)
    assert r.status == 0, r
    p = pprof.valid(out)
    pids = {}
    for name in ("first_work", "second_work"):
        pids[name] = {s.labels["pid"] for s in p.samples if any(name in f.name for f in s.frames)}
        assert len(pids[name]) == 1, (name, pids)
    assert pids["first_work"] != pids["second_work"]
    for pid in set.union(*pids.values()):
        os.unlink(f"/tmp/perf-{pid}.map")


def test_what_goes_on_in_the_background(out):
    """The file is there with the command, and again when the last of the tree has ended, with all of it."""
    code = "import subprocess, sys, time\nsubprocess.Popen(sys.argv[1:])\ntime.sleep(0.3)\n"
    with harness.Program([harness.STILE, "record", "-F", "1000", "-o", out, "--", harness.PYTHON, "-c", code,
                          harness.program("split"), "1", "1500"]) as app:
        r = app.wait(60)
        first = pprof.valid(out)
        assert "1 still runs" in r.err.decode(), r
        harness.wait_until(lambda: pprof.load(out).by_label("comm")["split"] > first.by_label("comm")["split"], 30)
    last = pprof.valid(out)
    assert last.by_label("comm")["split"] == pytest.approx(1.5e9, rel=0.05)
    assert last.ns > first.ns


def test_a_child_that_is_flushed(out):
    """Who asks for the file has it when he is told so, with what all others have done up to then."""
    argv = [harness.STILE, "record", "-F", "1000", "-o", out, "--", "/bin/sh", "-c", '"$@"; exit 0', "sh",
            harness.program("api"), "work1", "flush", "wait", "work2"]
    with harness.Program(argv, stdin=subprocess.PIPE) as app:
        app.wait_output("flush: 0")
        first = pprof.valid(out, timeout=0)
        app.process.stdin.write(b"\n")
        app.process.stdin.flush()
        assert app.wait(60).status == 0
    last = pprof.valid(out)
    assert "work_one" in first.cum() and "work_two" not in first.cum()
    assert last.cum()["work_one"] == pytest.approx(first.cum()["work_one"], rel=0.1) and "work_two" in last.cum()


def test_record_is_killed(out):
    """The rest of the tree is in the file all the same."""
    with harness.Program([harness.STILE, "record", "-F", "1000", "-o", out, "--", "/bin/sh", "-c",
                          f"{harness.program('split')} 1 300 >/dev/null; echo half; {harness.program('split')} 1 500"
                          " >/dev/null"]) as app:
        app.wait_output("half")
        app.signal(signal.SIGKILL)
        app.wait(10)
        p = pprof.valid(out, timeout=30)
    assert p.by_label("comm")["split"] == pytest.approx(0.8e9, rel=0.05)


@pytest.mark.parametrize("options, name", [(["--no-merge"], "out.pb.gz"), ([], "%e.%p.pb.gz"), ([], "."),
                                           (["--interval", "10s"], "out.pb.gz")])
def test_kept_apart(out, options, name):
    """A name for each process says so; so does whoever wants several files of each."""
    script = f"{harness.program('split')} 1 200 >/dev/null; {harness.program('split')} 1 200"
    r = record(out.with_name(name) if name != "." else out.parent, ["/bin/sh", "-c", script], *options)
    assert r.status == 0, r
    profiles = [pprof.valid(f) for f in out.parent.iterdir()]
    assert len(profiles) >= 2
    assert all("comm" not in s.labels for p in profiles for s in p.samples)


def test_a_child_with_a_file_of_its_own(out):
    """Whoever names another file has it."""
    own = out.with_name("own.pb.gz")
    split = harness.program("split")
    r = record(out, ["/bin/sh", "-c", f"PROFILE={own} {split} 1 300 >/dev/null; {split} 1 300"])
    assert r.status == 0, r
    assert pprof.valid(own).ns == pytest.approx(300e6, rel=0.3)
    assert pprof.valid(out).by_label("comm")["split"] == pytest.approx(300e6, rel=0.3)


def test_children_without_a_profile(out):
    """Their time is told, as that of children."""
    code = ("import os, subprocess, sys\n"
            "clean = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'}\n"
            "subprocess.run(sys.argv[1:], env=clean, stdout=subprocess.DEVNULL)\n")
    r = record(out, [harness.PYTHON, "-c", code, harness.program("split"), "1", "500"])
    p = pprof.valid(out)
    assert p.cum()["[children not profiled]"] == pytest.approx(500e6, rel=0.1)
    assert p.ns == pytest.approx(r.cpu_ns, rel=0.02, abs=20e6)
    assert "[children not profiled]" in r.err.decode()


def test_children_who_are_not_to_be_profiled(out):
    """PROFILE_CHILDREN=0: neither forked nor executed ones, and their time is not told either."""
    for argv in ([harness.program("forker"), harness.program("split"), "1", "100"],
                 ["/bin/sh", "-c", f"{harness.program('split')} 1 100; exit 9"]):
        r = record(out, argv, env={"PROFILE_CHILDREN": "0"})
        assert r.status == 9, r
        assert [f.name for f in out.parent.iterdir()] == [out.name]
        p = pprof.valid(out)
        assert {s.labels["comm"] for s in p.samples} <= {"forker", "sh"}
        assert not {"work_in_child", "spin_a", "[children not profiled]"} & set(p.cum()), p.cum()
        out.unlink()


@pytest.mark.parametrize("value", ["2", "no", "-1"])
def test_bad_wish_for_children(out, value):
    r = harness.run([harness.program("ending"), "exit"], profile=out, env={"PROFILE_CHILDREN": value})
    assert "PROFILE_CHILDREN" in harness.one_line(r.err) and not out.exists()


def test_blocking_profile(out):
    """It is the tree's, too."""
    script = f"{harness.program('split')} 1 50 >/dev/null; sleep 0.3; sleep 0.2"
    r = record(out, ["/bin/sh", "-c", script], "--block", "--block-rate", "1")
    assert r.status == 0, r
    block = out.with_name("out.block.pb.gz")
    assert sorted(f.name for f in out.parent.iterdir()) == sorted([out.name, block.name])
    p = pprof.valid(block, sample_types=[("contentions", "count"), ("delay", "nanoseconds")])
    slept = [s for s in p.samples if s.labels["comm"] == "sleep" and s.labels.get("reason") == "sleep"]
    assert sum(s.ns for s in slept) == pytest.approx(0.5e9, rel=0.2)
    assert len({s.labels["pid"] for s in slept}) == 2


def test_place_that_is_gone_at_the_end(out):
    """One line, and the command's own status."""
    r = record(out, ["/bin/sh", "-c", f"rmdir {out.parent}; exit 3"])
    out.parent.mkdir()
    assert r.status == 3
    assert f"stile: cannot write {out}: No such file or directory" in r.err.decode(), r


def make(directory, jobs=2):
    return ["make", "-s", f"-j{jobs}", "-C", str(directory)]


@pytest.mark.measures
def test_make(out, tmp_path):
    """A real project of C: hundreds of processes, whose sum is what the kernel says."""
    sources = sorted((harness.SOURCE / "profiler" / "collector").glob("*.c"))
    rules = [f"{s.stem}.o: {s}\n\tgcc -D_GNU_SOURCE -DSTILE_VERSION='\"0\"' -I{harness.SOURCE} -O0 -g -c -o $@ $<\n" for s in sources]
    (tmp_path / "Makefile").write_text("all: " + " ".join(f"{s.stem}.o" for s in sources) + "\n" + "".join(rules))
    code = ("import json, resource, subprocess, sys\n"
            "status = subprocess.run(sys.argv[1:]).returncode\n"
            "used = [resource.getrusage(w) for w in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]\n"
            "print(json.dumps([status, *(u.ru_utime + u.ru_stime for u in used)]))\n")
    assert harness.tool("make") and harness.tool("gcc")
    r = record(out, [harness.PYTHON, "-c", code, *make(tmp_path)], timeout=200)
    status, children, own = json.loads(harness.lines(r.out)[-1])
    assert (r.status, status) == (0, 0), r
    p = pprof.valid(out)
    assert [f.name for f in out.parent.iterdir()] == [out.name]
    assert p.ns == pytest.approx((children + own) * 1e9, rel=0.02), p.comments
    processes = int(re.search(r"^processes: (\d+)", "\n".join(p.comments), re.M).group(1))
    assert processes > 3 * len(sources) >= 90
    assert p.by_label("comm")["cc1"] > 0.6 * p.ns

