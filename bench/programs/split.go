// What split.c does, for Go's own profiler: split_go shares|threads|pool|kernel MS FILE HZ
//
// Each thread of C is a goroutine that has a thread to itself; the profile goes to FILE.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	processClock = 2
	threadClock  = 3
	turnNs       = 500000
	chunk        = 2000
)

var (
	shares = []uint64{50, 30, 20}
	parts  = []func(uint64){part_0, part_1, part_2, part_3, part_4, part_5, part_6, part_7}
	used   [8]uint64
	zeros  *os.File
)

func now(clock uintptr) uint64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0)
	return uint64(t.Sec)*1000000000 + uint64(t.Nsec)
}

var sink uint64

func burn(ns uint64) {
	end := now(threadClock) + ns
	x := end | 1
	for now(threadClock) < end {
		for i := 0; i < chunk; i++ {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
	atomic.StoreUint64(&sink, x)
}

//go:noinline
func part_0(ns uint64) { burn(ns) }

//go:noinline
func part_1(ns uint64) { burn(ns) }

//go:noinline
func part_2(ns uint64) { burn(ns) }

//go:noinline
func part_3(ns uint64) { burn(ns) }

//go:noinline
func part_4(ns uint64) { burn(ns) }

//go:noinline
func part_5(ns uint64) { burn(ns) }

//go:noinline
func part_6(ns uint64) { burn(ns) }

//go:noinline
func part_7(ns uint64) { burn(ns) }

var buffer [1 << 16]byte

//go:noinline
func part_kernel(ns uint64) {
	for end := now(threadClock) + ns; now(threadClock) < end; {
		if n, err := syscall.Read(int(zeros.Fd()), buffer[:]); n != len(buffer) || err != nil {
			os.Exit(1)
		}
	}
}

func timed(i int, part func(uint64), ns uint64) {
	begin := now(threadClock)
	part(ns)
	atomic.AddUint64(&used[i], now(threadClock)-begin)
}

type turn struct {
	part int
	ns   uint64
}

func inThreads(turns []turn) {
	var all sync.WaitGroup
	all.Add(len(turns))
	for _, t := range turns {
		go func(t turn) {
			runtime.LockOSThread() // never given back: the thread ends with the goroutine
			defer all.Done()
			timed(t.part, parts[t.part], t.ns)
		}(t)
	}
	all.Wait()
}

func inTurns(how string, ns uint64) {
	random := uint32(2463534242)
	for used[0]+used[1]+used[2] < ns {
		for i, share := range shares {
			random ^= random << 13 // xorshift32, as in C
			random ^= random >> 17
			random ^= random << 5
			length := turnNs / 100 * share / 2 * uint64(1024+random%1024) / 1024
			switch {
			case how == "pool":
				inThreads([]turn{{i, length / 2}, {i, length / 2}})
			case how == "kernel" && i == 1:
				timed(i, part_kernel, length)
			default:
				timed(i, parts[i], length)
			}
		}
	}
}

func atOnce(ns uint64) {
	turns := make([]turn, len(parts))
	for i := range turns {
		n := uint64(len(parts))
		turns[i] = turn{i, ns * uint64(i+1) * 2 / (n * (n + 1))}
	}
	inThreads(turns)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "split_go:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 5 {
		fail(fmt.Errorf("shares|threads|pool|kernel MS FILE HZ"))
	}
	ms, err := strconv.ParseUint(os.Args[2], 10, 32)
	fail(err)
	hz, err := strconv.Atoi(os.Args[4])
	fail(err)
	zeros, err = os.Open("/dev/zero")
	fail(err)
	file, err := os.Create(os.Args[3])
	fail(err)
	runtime.LockOSThread()
	if hz != 100 {
		runtime.SetCPUProfileRate(hz) // StartCPUProfile then complains that it cannot set its own, and goes on
	}
	fail(pprof.StartCPUProfile(file))
	if os.Args[1] == "threads" {
		atOnce(ms * 1000000)
	} else {
		inTurns(os.Args[1], ms*1000000)
	}
	pprof.StopCPUProfile()
	fail(file.Close())
	var said []string
	for i, ns := range used {
		name := fmt.Sprintf("part_%d", i)
		if os.Args[1] == "kernel" && i == 1 {
			name = "part_kernel"
		}
		if ns != 0 {
			said = append(said, fmt.Sprintf("%q: %d", name, ns))
		}
	}
	fmt.Printf("{\"cpu\": %d, \"parts\": {%s}}\n", now(processClock), strings.Join(said, ", "))
}
