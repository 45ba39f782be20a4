"""B06: stacks that are copied away and back, with the stubs that stand on them: barriers switch themselves off, and every
copy stays right for ever."""

import pytest

import harness
import under_barriers

# The extension is loaded, and stacks are copied, on top of frames that have had barriers for a while.
GREENLETS = r"""
import sys, time
def through_c(n, f):
    return max([n], key=lambda x: through_c(x - 1, f) if x else f())
def spin(seconds):
    end = time.process_time() + seconds
    n = 0
    while time.process_time() < end:
        n += sum(i * i for i in range(500)) & 1
wrong = 0
def switching():
    global wrong
    import greenlet
    def worker(k):
        def inner():
            total = 0
            for i in range(12):
                total += greenlet.getcurrent().parent.switch(k * 100 + i)
            return total
        return through_c(k % 10 + 1, inner)
    end = time.process_time() + 1.0
    while time.process_time() < end:
        workers = [greenlet.greenlet(worker) for k in range(8)]
        got = [g.switch(k) for k, g in enumerate(workers)]
        for turn in range(12):
            spin(0.002)
            for k in (3, 1, 7, 0, 5, 2, 6, 4): # each at another depth
                got[k] = through_c(k, lambda: workers[k].switch(1))
        wrong += any(not g.dead for g in workers) or any(v < 10 for v in got)
    spin(0.2)
    return 7
through_c(6, lambda: spin(0.5) or 1)
wrong += through_c(25, lambda: spin(0.5) or switching()) < 7
spin(0.1)
print("wrong:", wrong)
"""

# Continuations that are entered again and again, each with its copy of the stack.
GUILE = r"""
(define wrong 0)
(define (deep n f) (if (= n 0) (f) (+ 1 (deep (- n 1) f))))
(define (through-c n f) ; frames of libguile's own: sort and its predicate
  (if (= n 0) (f)
      (let ((got #f))
        (sort (list 1 2) (lambda (a b) (set! got (or got (through-c (- n 1) f))) (< a b)))
        got)))
(define (again times)
  (let ((k #f) (count 0))
    (through-c 10 (lambda () (deep 50 (lambda () (call/cc (lambda (c) (set! k c))) 0)) 1))
    (set! count (+ count 1))
    (if (< count times) (k 0))
    count))
(define end (+ (get-internal-run-time) internal-time-units-per-second))
(let loop ()
  (if (not (= (again 20) 20)) (set! wrong (+ wrong 1)))
  (if (< (get-internal-run-time) end) (loop)))
(display (list "wrong:" wrong))
(newline)
"""

RUBY = r"""
require 'continuation'
$wrong = 0
def deep(n, &f) = n == 0 ? f.call : [n].map { deep(n - 1, &f) }.first + 1
def again(times)
  count, k = 0, nil
  got = deep(30) { callcc { |c| k = c }; 0 }
  $wrong += 1 unless got == 30
  count += 1
  k.call if count < times
  count
end
while Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) < 1.5
  $wrong += 1 unless again(10) == 10
end
puts "wrong: #{$wrong}"
"""


@under_barriers.modes
def test_greenlets(out, mode):
    p = under_barriers.run([harness.PYTHON, "-c", GREENLETS], out, mode)
    told = under_barriers.assert_off(p, "copies stacks")
    if mode == "all":  # it was not for want of barriers
        assert told["placed"] > 20 and told["hit"] > 0 and told["saved"] > 0, told


@under_barriers.modes
@pytest.mark.parametrize("name,argv,text", [("guile", ["--no-auto-compile", "-c"], GUILE), ("ruby", ["-e"], RUBY)])
def test_continuations(name, argv, text, out, mode):
    p = under_barriers.run([harness.tool(name), *argv, text], out, mode)
    told = under_barriers.assert_off(p, f"lib{name}")
    assert "copies stacks" in told["off"] and told["placed"] == 0, told
