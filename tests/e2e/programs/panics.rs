// Panics through deep stacks: `panics MS`. They are caught at the top, on the way, and at a thread's end; every
// frame's guard has to be dropped, the innermost first, and some have deep stacks themselves.
use std::arch::asm;
use std::cell::Cell;
use std::panic::{catch_unwind, panic_any, resume_unwind, set_hook, AssertUnwindSafe};
use std::thread;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

fn process_cpu_ns() -> u64 {
    let mut t = Timespec { seconds: 0, nanoseconds: 0 };
    assert_eq!(unsafe { clock_gettime(2, &mut t) }, 0);
    t.seconds as u64 * 1_000_000_000 + t.nanoseconds as u64
}

fn work_a_little() {
    let mut x: u64 = 1;
    for _ in 0..3000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        unsafe { asm!("/* {0} */", inout(reg) x) };
    }
}

fn random_below(state: &mut u64, n: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % n
}

thread_local! {
    static DROPPED: Cell<u64> = Cell::new(0); // the frame whose guard was dropped last
}

struct Guard {
    depth: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.with(|d| {
            assert_eq!(d.get() + 1, self.depth);
            d.set(self.depth);
        });
    }
}

// Goes deep when it is dropped.
struct Deep;

impl Drop for Deep {
    fn drop(&mut self) {
        let kept = DROPPED.with(|d| d.replace(0));
        assert_eq!(descend(60, Way::Return), 60 * 61 / 2);
        assert_eq!(DROPPED.with(|d| d.replace(kept)), 60);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Return,
    Panic,
    CatchOnTheWay, // and go on with the same
    DropDeep,
}

#[inline(never)]
fn bottom(way: Way) -> u64 {
    work_a_little();
    if way != Way::Return {
        panic_any(42u64);
    }
    0
}

#[inline(never)]
fn catching(depth: u64, way: Way) -> u64 {
    match catch_unwind(|| descend(depth - 1, way)) {
        Ok(sum) => sum,
        Err(cause) => {
            work_a_little();
            resume_unwind(cause)
        }
    }
}

#[inline(never)]
fn dropping(depth: u64, way: Way) -> u64 {
    let _deep = Deep;
    descend(depth - 1, way)
}

#[inline(never)]
fn descend(depth: u64, way: Way) -> u64 {
    if depth == 0 {
        return bottom(way);
    }
    let _guard = Guard { depth };
    work_a_little();
    let below = match way {
        Way::CatchOnTheWay if depth % 16 == 0 => catching(depth, way),
        Way::DropDeep if depth % 64 == 1 => dropping(depth, way),
        _ => descend(depth - 1, way),
    };
    work_a_little();
    below + depth
}

fn try_way(depth: u64, way: Way) {
    DROPPED.with(|d| d.set(0));
    match catch_unwind(AssertUnwindSafe(|| descend(depth, way))) {
        Ok(sum) => assert!(way == Way::Return && sum == depth * (depth + 1) / 2),
        Err(cause) => assert!(way != Way::Return && *cause.downcast::<u64>().unwrap() == 42),
    }
    assert_eq!(DROPPED.with(|d| d.get()), depth);
}

fn main() {
    let ms: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let begun = process_cpu_ns();
    let (mut random, mut rounds) = (1, 0);
    set_hook(Box::new(|_| {}));
    while rounds < 5 || process_cpu_ns() - begun < ms * 1_000_000 {
        for way in [Way::Return, Way::Panic, Way::CatchOnTheWay, Way::DropDeep] {
            try_way(20 + random_below(&mut random, if rounds % 4 == 0 { 20 } else { 280 }), way);
        }
        let ended = thread::spawn(|| descend(150, Way::Panic)).join();
        assert_eq!(*ended.unwrap_err().downcast::<u64>().unwrap(), 42);
        rounds += 1;
    }
    println!("done");
}
