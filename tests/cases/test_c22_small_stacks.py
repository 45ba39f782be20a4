"""C22: threads and fibers whose stacks have no room for a signal's frame live, and are sampled."""

import os

import pytest

import harness
import pprof


@pytest.mark.parametrize("hz", [harness.TICK_HZ, 10000])
def test_small_stacks(out, hz):
    plain = harness.run([harness.program("small_stacks")])
    r = harness.run([harness.program("small_stacks")], profile=out, hz=hz)
    assert r.same == plain.same == (0, b"done\n", b"")
    p = pprof.valid(out)
    names = ("spin_on_small_stack", "spin_with_no_room", "spin_on_fiber")
    # Three hundred frames on 64 KiB, ten thousand times a second, are more than the collector can walk: what it cannot,
    # and what waits behind that, is told, and nothing is missing.
    full = sum(s.ns for s in p.samples if len(s.frames) == 1 and pprof.reason(s) == "[buffer full]")
    assert sum(p.cum()[name] for name in names) + full == pytest.approx(1200e6, rel=0.05)
    for name in names:
        assert 400e6 - full - 40e6 < p.cum()[name] < 440e6, name
    assert hz > harness.TICK_HZ or full < 20e6
    # The threads' stacks are whole, down to where libc starts them; a slow collector may cost one or two.
    callers = {"spin_on_small_stack": "small_main"}
    if hz == harness.TICK_HZ:
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


def test_a_program_that_adopts_the_stack_it_finds(out, tmp_path):
    """Go's runtime sets its stacks and asks for them past libc, and its handlers insist on running on one. It handles
    every signal there is, too, so that its profile ends early; it must not be hurt."""
    (tmp_path / "main.go").write_text(GO)
    (tmp_path / "go.mod").write_text("module adopts\n\ngo 1.19\n")
    env = {"HOME": tmp_path, "GOCACHE": tmp_path / "cache", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1",
           "PATH": os.environ["PATH"]}
    built = harness.run([harness.tool("go"), "build", "-o", tmp_path / "adopts", "."], env=env, cwd=tmp_path)
    assert built.status == 0, built
    for hz in (harness.DEFAULT_HZ, 10000):
        r = harness.run([tmp_path / "adopts"], profile=out, hz=hz)
        assert (r.status, r.out) == (0, b"go ok 42\n"), r
        assert "has set a handler of its own for SIGPROF" in harness.one_line(r.err)
        pprof.valid(out)
        out.unlink()
