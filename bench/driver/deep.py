"""Stacks of depth_stack in profiles: whether they are whole, and what the comments say of their walks."""

import gzip
import re
from dataclasses import dataclass
from itertools import takewhile

import pprof
from driver import profiles
from driver.measure import Failed

BELOW = 5  # _start, two of libc's, main, at_depth
ABOVE = 2  # what sends a tick, and libc's syscall
NEW = 10  # of step_LEVEL_KIND at most
PASSING = 6  # frames of what is called in passing: clock_gettime and what it calls
BEFORE_MAIN = 4
KINDS = {"_start": "start", "main": "main", "at_depth": "at_depth"}
THEN = ("changing", "ticking", "batching")


def argument(frames):
    """DEPTH for a stack of so many frames where a tick is sent."""
    return frames - BELOW - ABOVE


class Bare(pprof.Profile):
    """Without a list of each sample's frames: there are millions."""

    def _sample(self, sample):
        return sample


def load(path):
    return Bare(gzip.decompress(path.read_bytes()), path.name)


def comment(profile, pattern):
    """The match in the first comment that has one, or None."""
    return next((m for m in (re.search(pattern, c) for c in profile.comments) if m), None)


def _kind(name):
    if name.startswith("["):
        return name
    step = re.fullmatch(r"step_(\d)_\d", name)
    if step:
        return int(step[1])
    if name.startswith("down_"):
        return "down"
    return "then" if name in THEN else KINDS.get(name, "other")


def _is_whole(kinds, depth):
    """`kinds` from the root on. What comes after the newest frames may be any few frames, and the kernel's."""
    levels = min(NEW, depth - 1)
    before = len(list(takewhile(lambda k: k == "other", kinds[1:1 + BEFORE_MAIN])))
    must = ["start", *["other"] * before, "main", "at_depth", *["down"] * (depth - 1 - levels), "then"]
    if kinds[:len(must)] != must:
        return False
    rest = kinds[len(must):]
    steps = [k for k in rest if isinstance(k, int)]
    others = [k for k in rest[len(steps):] if k == "other"]
    calls = [k for k in rest[len(steps) + len(others):] if k != "[kernel]"]
    return steps == list(range(len(steps))) and len(steps) <= levels and len(others) <= PASSING and not calls


@dataclass
class Taken:
    """What one run's profiles say."""
    whole: float = 0  # samples at the depth
    broken: float = 0
    walks: int = 0
    cycles: int = 0
    hits: int = 0
    ns: float = 0  # of a walk

    @property
    def share(self):
        return self.whole / (self.whole + self.broken) if self.whole + self.broken else 0.0

    @property
    def walk(self):
        """Cycles."""
        if not self.walks:
            raise Failed("the profile does not say what its walks took")
        return self.cycles / self.walks


def _take(p, depth, taken):
    kinds = {i: _kind(frames[-1].name) for i, frames in p.locations.items()}
    for s in p.samples:
        stack = [kinds[i] for i in reversed(s.location_id)]
        if _is_whole(stack, depth):
            taken.whole += s.value[0]
        # What has none of this is of what comes before or after; but a reason at the root says nothing of that.
        elif (str(stack[0]).startswith("[") and stack[0] not in pprof.PLACES) or \
                any(k == "then" or isinstance(k, int) for k in stack):
            taken.broken += s.value[0]


def taken(run, depth):
    """Of a run of depth_stack, without what it did to warm up in an image of its own."""
    found, files = Taken(), sorted(run.directory.glob("profile*.gz"))
    if not files:
        raise Failed("a run of depth_stack left no profile")
    for path in files:
        p = load(path)
        if comment(p, r"^command: .* (warm|ticks|batches) "):
            continue
        walks = comment(p, r"^walk time: (\d+) by rules alone, (\d+)")
        if walks:
            found.walks, found.cycles = found.walks + int(walks[1]), found.cycles + int(walks[2])
        found.hits += pprof.barriers(p).get("hit") or 0
        _take(p, depth, found)
    return found


def of_gperftools(run, frames):
    """The share of samples that have so many frames, of gperftools's own format."""
    records = list(profiles.gperftools_records(run.profile)[1])
    everything = sum(count for count, _ in records)
    return sum(count for count, addresses in records if len(addresses) >= frames) / everything if everything else 0.0
