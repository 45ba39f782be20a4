"""The checks of these tests can fail: every rule is broken once in a profile made by hand."""

import gzip
import signal
import sys

import pytest

import harness
import pprof


class Maker:
    """Builds a small valid profile, part by part, so that a test can break one part."""

    def __init__(self):
        self.pb = pprof.pb2.Profile()
        self.index = {"": 0}
        self.pb.string_table.append("")

    def text(self, s):
        if s not in self.index:
            self.index[s] = len(self.pb.string_table)
            self.pb.string_table.append(s)
        return self.index[s]

    def mapping(self, name, build_id, start, limit):
        self.pb.mapping.add(id=len(self.pb.mapping) + 1, memory_start=start, memory_limit=limit,
                            filename=self.text(name), build_id=self.text(build_id))

    def location(self, name, address, mapping):
        f = self.pb.function.add(id=len(self.pb.function) + 1, name=self.text(name), system_name=self.text(name))
        loc = self.pb.location.add(id=len(self.pb.location) + 1, mapping_id=mapping, address=address)
        loc.line.add(function_id=f.id)

    def sample(self, locations, count, ns, tid=11):
        s = self.pb.sample.add(location_id=locations, value=[count, ns])
        s.label.add(key=self.text("thread"), str=self.text("main"))
        s.label.add(key=self.text("tid"), num=tid)
        s.label.add(key=self.text("pid"), num=11)

    def profile(self):
        return pprof.Profile(self.pb.SerializeToString())


def good():
    m = Maker()
    pb = m.pb
    pb.sample_type.add(type=m.text("samples"), unit=m.text("count"))
    pb.sample_type.add(type=m.text("cpu"), unit=m.text("nanoseconds"))
    pb.period_type.type, pb.period_type.unit = m.text("cpu"), m.text("nanoseconds")
    pb.default_sample_type = m.text("cpu")
    pb.period, pb.time_nanos, pb.duration_nanos = 10**7, 1_700_000_000 * 10**9, 10**9
    m.mapping("/nonexistent/app", "ab12", 0x1000, 0x9000)
    m.location("_start", 0x1010, 1)
    m.location("main", 0x1100, 1)
    m.location("work", 0x1200, 1)
    m.location("[stack locked]", 0, 0)
    m.location("[kernel]", 0, 0)
    m.sample([3, 2, 1], 6, 60 * 10**6)
    m.sample([2, 1], 3, 30 * 10**6)
    m.sample([3, 4], 1, 10 * 10**6)
    m.sample([5, 2, 1], 1, 10 * 10**6, tid=12)
    pb.comment.extend(m.text(c) for c in ("stile 0.1.0", "command: app", "clock: thread timer",
                                          "rate: 100 Hz requested, 100.0 signals per second of CPU time",
                                          "[stack locked]: 1"))
    return m


def test_a_valid_profile_has_no_problem():
    assert pprof.problems(good().profile()) == []


def _doubled_id(m):
    m.pb.location[1].id = 3


def _zero_id(m):
    m.pb.function[0].id = 0
    m.pb.location[0].line[0].function_id = 0


def _too_few_values(m):
    s = m.pb.sample[0]
    s.value.append(1)


def _first_string(m):
    m.pb.string_table[0] = "x"


def _string_out_of_range(m):
    m.pb.drop_frames = 1000


def _doubled_string(m):
    m.pb.string_table.append("main")


def _default_type(m):
    m.pb.default_sample_type = 0


def _period_type(m):
    m.pb.period_type.unit = m.text("count")


def _sample_types(m):
    m.pb.sample_type[0].type = m.text("contentions")


def _address(m):
    m.pb.location[2].address = 0x9000


def _label_lost(m):
    del m.pb.sample[1].label[0]


def _label_reserved(m):
    m.pb.sample[1].label.add(key=m.text("pprof::base"), str=m.text("true"))


def _label_twice(m):
    m.pb.sample[1].label.add(key=m.text("pid"), num=4)


def _no_stack(m):
    del m.pb.sample[0].location_id[:]


def _negative(m):
    m.pb.sample[0].value[1] = -1


def _doubled_sample(m):
    m.sample([2, 1], 1, 10**7)


def _has_functions(m):
    m.pb.mapping[0].has_functions = True
    for function in m.pb.function:
        function.name = m.text("app+0x1100")


def _has_lines(m):
    m.pb.mapping[0].has_line_numbers = True


def _has_filenames(m):
    m.pb.mapping[0].has_filenames = True


def _no_line(m):
    del m.pb.location[2].line[:]


def _nameless(m):
    m.pb.function[2].name = 0


def _comments(m):
    del m.pb.comment[2]


def _uncounted_reason(m):
    del m.pb.comment[4]


def _empty_mapping(m):
    m.pb.mapping[0].memory_limit = 0x1000


def _unknown_mapping(m):
    m.pb.location[0].mapping_id = 77


def _duration(m):
    m.pb.duration_nanos = 0


def _wrong_build_id(m):
    m.pb.mapping[0].filename = m.text(harness.PYTHON)


BREAKS = [_doubled_id, _zero_id, _too_few_values, _first_string, _string_out_of_range, _doubled_string,
          _default_type, _period_type, _sample_types, _address, _label_lost, _label_reserved, _label_twice,
          _no_stack, _negative, _doubled_sample, _has_functions, _has_lines, _has_filenames, _no_line, _nameless,
          _comments, _uncounted_reason, _empty_mapping, _unknown_mapping, _duration, _wrong_build_id]


@pytest.mark.parametrize("break_rule", BREAKS, ids=lambda f: f.__name__.strip("_"))
def test_a_broken_rule_is_found(break_rule):
    m = good()
    break_rule(m)
    try:
        p = m.profile()
    except (KeyError, IndexError):
        return  # a reference to nowhere does not even load
    assert pprof.problems(p) != []


def test_sums():
    p = good().profile()
    assert p.ns == 110 * 10**6 and p.count == 11
    assert p.flat() == {"work": 70 * 10**6, "main": 30 * 10**6, "[kernel]": 10 * 10**6}
    assert p.cum()["main"] == 100 * 10**6
    assert p.cum("count", tid=12) == {"[kernel]": 1, "main": 1, "_start": 1}
    assert p.by_label("tid") == {11: 100 * 10**6, 12: 10 * 10**6}


def test_shares_see_what_is_not_whole():
    m = good()
    p = m.profile()
    assert pprof.bracketed_ns([p]) == {"[stack locked]": 10 * 10**6}
    assert pprof.bracketed_share([p]) == pytest.approx(1 / 11)


def test_unwind_information_and_roots_are_found():
    elf = pprof.Elf.open(harness.program("split"))
    assert elf.has_cfi(elf.entry)
    assert not elf.has_cfi(0)
    assert not elf.has_cfi(max(elf.frames[0]) + 10**6)
    files = {name for name, _ in pprof.known_roots()}
    assert harness.program("roots") in files, "the program's own start"
    assert any("libc.so" in f for f in files), "a thread's start"


def test_files_are_what_their_names_say(tmp_path):
    data = good().pb.SerializeToString()
    (tmp_path / "a.pb").write_bytes(data)
    (tmp_path / "a.pb.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.pb.gz").write_bytes(data)
    assert pprof.valid(tmp_path / "a.pb").ns == pprof.valid(tmp_path / "a.pb.gz").ns
    with pytest.raises(AssertionError):
        pprof.load(tmp_path / "b.pb.gz")


def test_a_missing_file_fails(tmp_path):
    with pytest.raises(pytest.fail.Exception):
        harness.wait_for_file(tmp_path / "none.pb.gz", timeout=0.1)


def test_running():
    r = harness.run(["/bin/sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"text")
    assert r.same == (3, b"text", b"oops\n")
    r = harness.run([harness.program("ending"), "200", "raise", str(int(signal.SIGTERM))])
    assert r.status == -signal.SIGTERM
    assert 0.15e9 < r.cpu_ns < 1e9


def test_a_program_that_hangs_is_ended():
    with pytest.raises(pytest.fail.Exception):
        harness.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.3)


def test_what_stays_behind_is_seen(mark):
    with harness.Program(["/bin/sleep", "30"]) as p:
        assert [q.pid for q in harness.marked(mark)] == [p.pid]
    assert harness.marked(mark) == []
    assert harness.collectors(mark) == []


def test_one_line():
    assert harness.one_line(b"stile: no such thing\n") == "stile: no such thing"
    for bad in (b"", b"a\nb\n", b"stile: no\nstile: twice\n", b"other: line that is not ours\n"):
        with pytest.raises(AssertionError):
            harness.one_line(bad)
