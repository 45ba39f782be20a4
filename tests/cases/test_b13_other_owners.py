"""B13: whoever else exchanges return addresses, checks them or looks them up: barriers switch themselves off, and the
profile says why, once."""

import shutil
import subprocess

import pytest

import harness
import pprof
import under_barriers

OCAML = r"""
type tree = Leaf | Node of tree * int * tree
let rec insert t k = match t with
  | Leaf -> Node (Leaf, k, Leaf)
  | Node (l, v, r) -> if k < v then Node (insert l k, v, r) else if k > v then Node (l, v, insert r k) else t
let rec sum t = match t with Leaf -> 0 | Node (l, v, r) -> sum l + v + sum r
let rec deep n = if n = 0 then Array.length (Array.make 100 (string_of_int n)) else 1 + deep (n - 1)
exception Found of int
let rec raise_at n = if n = 0 then raise (Found 42) else 1 + raise_at (n - 1)
let () =
  let wrong = ref 0 in
  while Sys.time () < 1.0 do
    let t = ref Leaf in
    for i = 0 to 2000 do t := insert !t (i * 7919 mod 10007) done;
    (match raise_at 200 with exception Found 42 -> () | _ -> incr wrong);
    if sum !t <> 9955500 && sum !t < 0 then incr wrong;
    if deep 500 <> 600 then incr wrong;
    List.iter (fun s -> if String.length s = 0 then incr wrong)
      (List.sort compare (List.init 1000 string_of_int))
  done;
  Printf.printf "wrong: %d\n" !wrong
"""

GO = r"""
package main

// #include <stdlib.h>
// static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
// static void sort_ints(int *p, int n) { qsort(p, n, sizeof *p, compare); }
import "C"
import "fmt"

func deep(n int) int {
	if n == 0 {
		var a [64]C.int
		for i := range a { a[i] = C.int(64 - i) }
		C.sort_ints(&a[0], 64)
		return int(a[0])
	}
	return deep(n-1) + 1
}

func main() {
	wrong := 0
	for i := 0; i < 20000; i++ {
		if deep(i%200) != i%200+1 { wrong++ }
	}
	fmt.Println("wrong:", wrong)
}
"""

GREENLETS = r"""
import sys, time
import greenlet
wrong = 0
def through_c(n, f):
    return max([n], key=lambda x: through_c(x - 1, f) if x else f())
def run():
    got = 0
    for i in range(20):
        got += greenlet.getcurrent().parent.switch(i)
    return got
while time.process_time() < 1.0:
    g = greenlet.greenlet(run)
    total = 0
    def pump():
        v = g.switch()
        while not g.dead:
            v = g.switch(v)
        return v
    through_c(12, pump)
    wrong += g.dead is not True
print("wrong:", wrong)
"""


def built(source, name, argv, directory):
    """A program that another language's compiler makes of a text."""
    (directory / name).write_text(source)
    r = subprocess.run([str(a) for a in argv], cwd=directory, env={**harness.clean_environment(), "HOME": str(directory),
                                                                   "GOCACHE": str(directory / "cache")},
                       capture_output=True, timeout=300, check=False)
    assert r.returncode == 0, r
    return directory / "program"


@under_barriers.modes
def test_ocaml(out, mode, tmp_path):
    program = built(OCAML, "main.ml", [harness.tool("ocamlopt"), "main.ml", "-o", "program"], tmp_path)
    p = under_barriers.run([program], out, mode)
    told = under_barriers.assert_off(p, "program looks return addresses up")
    assert told["placed"] == 0, told


@under_barriers.modes
def test_go(out, mode, tmp_path):
    """With C in it: others have no loader that could bring Stile in. Its runtime takes our signal; until then all is as with
    any program."""
    program = built(GO, "main.go", [harness.tool("go"), "build", "-o", "program", "main.go"], tmp_path)
    plain = harness.run([program])
    r = harness.run([program], profile=out, hz=under_barriers.HZ, env=under_barriers.environment(mode))
    assert (r.status, r.out) == (plain.status, plain.out) and b"wrong: 0" in r.out, r
    p = pprof.valid(out)
    told = pprof.barriers(p)
    assert told["placed"] == 0 and told["off"] in (None, "program looks return addresses up"), p.comments


@under_barriers.modes
def test_greenlet_is_loaded(out, mode):
    p = under_barriers.run([harness.PYTHON, "-c", GREENLETS], out, mode)
    under_barriers.assert_off(p, "copies stacks")


@under_barriers.modes
def test_return_probes(out, mode):
    """The kernel's, which a tracer may set in any program."""
    argv = [harness.program("own_address"), "probed", "1.5"]
    if harness.run(argv).status == 77:
        pytest.skip("this kernel lets us set no uprobes")
    p = under_barriers.run(argv, out, mode)
    under_barriers.assert_off(p, "there are uprobes in the program")


def test_shadow_stack():
    """What asks for it is tested by itself (unit.agent)."""
    flags = (harness.Path("/proc/cpuinfo").read_text() if shutil.which("true") else "").split()
    pytest.skip("this processor has user shadow stacks, but no program here turns them on" if "user_shstk" in flags
                else "this kernel has no user shadow stacks")
