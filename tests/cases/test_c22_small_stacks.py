"""C22: threads and fibers whose stacks have no room for a signal's frame live, and are sampled."""

import os

import pytest

import harness
import pprof


@pytest.mark.measures
def test_small_stacks(out, setting):
    plain = harness.run([harness.program("small_stacks")])
    r = harness.run([harness.program("small_stacks")], profile=out)
    assert (r.status, r.out) == (plain.status, plain.out) == (0, b"done\n"), r
    used = dict(zip(("spin_on_small_stack", "spin_with_no_room", "spin_on_fiber"), map(int, r.err.split())))
    p = pprof.valid(out)
    # Three hundred frames on 64 KiB, ten thousand times a second, are more than the collector can walk: what it cannot,
    # and what waits behind that, is told, and nothing is missing.
    full = sum(s.ns for s in p.samples if len(s.frames) == 1 and pprof.reason(s) == "[buffer full]")
    some = 20e6 + 4 * p.pb.period
    assert sum(p.cum()[name] for name in used) + full == pytest.approx(sum(used.values()), rel=0.05, abs=some)
    for name, ns in used.items():
        assert ns - full - some < p.cum()[name] < ns + some, name
    slow = setting.hz <= harness.TICK_HZ
    assert not slow or full < 20e6
    # The threads' stacks are whole, down to where libc starts them; a slow collector may cost one or two.
    callers = {"spin_on_small_stack": "small_main"}
    if slow:
        callers["spin_with_no_room"] = "full_main"
    for name, caller in callers.items():
        stacks = [s for s in p.samples if any(f.name == name for f in s.frames)]
        whole = sum(s.ns for s in stacks if any(f.name == caller for f in s.frames) and pprof.is_start(s.frames[-1]))
        assert whole > 0.95 * sum(s.ns for s in stacks), name


GO = """package main

// static int twice(int n) { return 2 * n; }
import "C"
import "fmt"

func main() {
	done := make(chan uint64)
	for g := 0; g < 8; g++ {
		go func() {
			sum := uint64(1)
			for i := uint64(0); i < 60000000; i++ {
				sum = sum*6364136223846793005 + i
			}
			done <- sum
		}()
	}
	for g := 0; g < 8; g++ {
		<-done
	}
	fmt.Println("go ok", C.twice(21))
}
"""


@pytest.fixture(name="adopts", scope="module")
def _adopts(tmp_path_factory):
    """Go's runtime sets its stacks and asks for them past libc."""
    where = tmp_path_factory.mktemp("go")
    (where / "main.go").write_text(GO)
    (where / "go.mod").write_text("module adopts\n\ngo 1.19\n")
    env = {"HOME": where, "GOCACHE": where / "cache", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1",
           "PATH": os.environ["PATH"]}
    built = harness.run([harness.tool("go"), "build", "-o", where / "adopts", "."], env=env, cwd=where)
    assert built.status == 0, built
    return where / "adopts"


def test_a_program_that_adopts_the_stack_it_finds(out, adopts):
    """Go's handlers insist on running on its stacks. It handles every signal there is, too, so that its profile ends early;
    it must not be hurt."""
    r = harness.run([adopts], profile=out)
    assert (r.status, r.out) == (0, b"go ok 42\n"), r
    assert "has set a handler of its own for SIGPROF" in harness.one_line(r.err)
    pprof.valid(out)
