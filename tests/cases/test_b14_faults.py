"""B14: the lock held, no stubs, slots that change underneath, wrong rows of CFI, full buffers: each is counted, no time
is lost, and nobody crashes."""

import re

import pytest

import torture
from under_barriers import modes


def run(tmp_path, mode, faults, kinds=torture.BUSY, seconds=1, hz=10000, env=None):
    r = torture.Round(tmp_path, seconds, 14, hz, mode, faults, kinds, env)
    assert not r.problems, r
    often = [f.split("=")[0] for f in faults.split(",") if f and not f.startswith(("row", "stubs"))]
    assert r.samples > 300 and all(r.injected[kind] > 0 for kind in often), (r, r.injected)
    return r


def test_without_faults(tmp_path):
    r = run(tmp_path, "all", "")
    assert r.told["locked"] == 0 and r.injected == {}
    assert r.told["placed"] == r.told["hit"] + r.told["retired"]


@modes
def test_lock_is_held(tmp_path, mode):
    """Each tick that found it so is one without a stack."""
    r = run(tmp_path, mode, "lock=10")
    assert r.told["locked"] == r.reasons["[stack locked]"] == r.injected["lock"]


@modes
def test_pool_of_one_stub(tmp_path, mode):
    """One thread at a time has it, once."""
    r = run(tmp_path, mode, "stubs=1")
    assert 0 < r.told["placed"] <= 4 and r.injected["stubs"] > 100, (r.told, r.injected)


def test_pool_of_few_stubs(tmp_path):
    """Thirty-two of them rest, and the others are used again and again."""
    r = run(tmp_path, "all", "stubs=40")
    assert r.told["placed"] > 40 and r.told["saved"] > 0 and r.injected["stubs"] > 100, (r.told, r.injected)


@modes
def test_slot_changes_before_it_is_filled(tmp_path, mode):
    """Nothing is placed there (or it would trap); elsewhere there is."""
    r = run(tmp_path, mode, "slot=3")
    assert r.told["placed"] > 0 and r.told["saved"] > 0, r.told


@modes
def test_stub_is_gone_from_its_slot(tmp_path, mode):
    """It is not hit, so it retires when it is missed."""
    r = run(tmp_path, mode, "gone=5")
    assert r.told["retired"] >= r.injected["gone"], (r.told, r.injected)
    assert r.told["placed"] == r.told["hit"] + r.told["retired"], r.told


@modes
@pytest.mark.parametrize("kind", ["rule=50", "row=5"])
def test_wrong_rows(tmp_path, mode, kind):
    """Walks go astray. What they take for a return address may be none, and gets no barrier that would hurt."""
    r = run(tmp_path, mode, kind)
    assert r.injected[kind.split("=")[0]] > 0, r.injected
    assert r.told["placed"] == r.told["hit"] + r.told["retired"], r.told


@pytest.mark.parametrize("faults", ["", "rule=200"])
def test_wrong_rows_are_found(tmp_path, faults):
    """By who asks for it: libunwind comes to the same stacks, barriers and all, where no row is wrong."""
    r = run(tmp_path, "all", faults, seconds=2, hz=2000, env={"PROFILE_DEBUG": torture.harness.debug("verifyunwind=2")})
    told = re.search(r"unwind verified: (\d+) samples, (\d+) differ", "\n".join(r.comments))
    verified, differ = map(int, told.groups())
    assert verified > 100 and (differ > 0) == bool(faults), r.comments


@modes
def test_ring_is_full(tmp_path, mode):
    r = run(tmp_path, mode, "ring=10")
    assert r.reasons["[buffer full]"] >= r.injected["ring"], (r.reasons, r.injected)


@modes
def test_no_block_for_a_snapshot(tmp_path, mode):
    r = run(tmp_path, mode, "block=2")
    assert r.reasons["[buffer full]"] > 0, (r.reasons, r.injected)


@modes
def test_all_at_once(tmp_path, mode):
    """And with fibers, libraries that come and go, short threads, and children."""
    r = run(tmp_path, mode, "lock=50,stubs=3000,slot=10,gone=10,rule=500,row=500,ring=100,block=10", (), 6, 20000)
    assert r.children > 0 and sum(r.by_children.values()) > 0, r


def test_no_faults_in_the_product():
    """Not a trace of them."""
    assert b"STILE_FAULTS" in torture.FAULTY.read_bytes()
    assert b"STILE_FAULTS" not in torture.harness.LIBRARY.read_bytes()
