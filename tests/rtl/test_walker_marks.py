"""What a walk sets in entries, and what the trace port tells: A and D, the TRACK table, probes, a second writer.

Values are typed by hand from the manual [SDM 3A chapter 4] and the TRACK table of docs/walker.md.
"""

from typing import Any

import pytest

from ptewalk.rtl.walker import WalkerConfig

from .walker_bench import (
    ARM,
    BUS,
    E_P,
    E_PK,
    E_US,
    E_WR,
    FAULT,
    FETCH,
    FRAME,
    FRAME_1G,
    FRAME_2M,
    LEAF,
    LINEAR,
    NATIVE,
    OFF,
    OK,
    PF,
    PKE,
    PROBE,
    PS,
    READ,
    RMW,
    RW,
    SAVED,
    SD,
    TABLE,
    US,
    WP,
    WRITE,
    A,
    D,
    P,
    Seen,
    bench_of,
    slot,
    tables,
    unchanged,
    walk,
)

NO_SOFT_DIRTY = WalkerConfig(soft_dirty=False)


# A and D --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("access", "leaf_bits"), [(READ, A), (FETCH, A), (WRITE, A | D), (RMW, A | D)])
def test_accessed_and_dirty(access: int, leaf_bits: int) -> None:
    """[SDM 3A 4.8] A in each entry used, D in the leaf for a write, in one conditional write each, root first."""
    words = tables(LINEAR, FRAME | P | RW | US, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    before = dict(words)
    seen = walk(words, LINEAR, access)
    assert seen.outcome == OK
    leaf = FRAME | P | RW | US
    assert seen.swaps == [
        (slot(LINEAR, 4), TABLE[3] | 7, TABLE[3] | 0x27, True),
        (slot(LINEAR, 3), TABLE[2] | 7, TABLE[2] | 0x27, True),
        (slot(LINEAR, 2), TABLE[1] | 7, TABLE[1] | 0x27, True),
        (slot(LINEAR, 1), leaf, leaf | leaf_bits, True),
    ]
    upper = {f"level{level}": TABLE[level - 1] | 0x27 for level in (2, 3, 4)}
    unchanged(words, before, level1=leaf | leaf_bits, **upper)
    again = dict(words)
    assert walk(words, LINEAR, access).swaps == []
    unchanged(words, again)


@pytest.mark.parametrize(("leaf_level", "frame"), [(2, FRAME_2M), (3, FRAME_1G)])
def test_dirty_in_a_large_leaf(leaf_level: int, frame: int) -> None:
    leaf = frame | PS | P | RW | US
    words = tables(LINEAR, leaf, leaf_level=leaf_level)
    before = dict(words)
    assert walk(words, LINEAR, WRITE, track=NATIVE).outcome == OK
    unchanged(words, before, **{f"level{leaf_level}": leaf | A | D | SD})


def test_eager_accessed_above_a_fault() -> None:
    """A is set as the walk passes [SDM 3A 4.8]; the entry that faults is left alone."""
    words = tables(LINEAR, FRAME | P | US, uppers={4: P | RW | US})
    before = dict(words)
    seen = walk(words, LINEAR, WRITE)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before, level4=TABLE[3] | 0x27)


@pytest.mark.parametrize("track", [OFF, FAULT, NATIVE])
def test_read_marks_nothing(track: int) -> None:
    words = tables(LINEAR, FRAME | P | US | ARM | SAVED)
    before = dict(words)
    assert walk(words, LINEAR, READ, track=track, saved_dirty=1).outcome == OK
    unchanged(words, before, level1=FRAME | P | US | ARM | SAVED | A)


# The TRACK table ------------------------------------------------------------------------------------------------------

BASE = FRAME | P | US
TRACK_TABLE = [
    # event, leaf, {way to track: bits set, bits cleared, or None for a page fault}
    ("D and SD set", BASE | RW | A | D | SD, {OFF: (0, 0), FAULT: (0, 0), NATIVE: (0, 0)}),
    ("D clear", BASE | RW | A | SD, {OFF: (D, 0), FAULT: (D, 0), NATIVE: (D, 0)}),
    ("SD clear", BASE | RW | A | D, {OFF: (0, 0), FAULT: (SD, 0), NATIVE: (SD, 0)}),
    ("both clear", BASE | RW | A, {OFF: (D, 0), FAULT: (D | SD, 0), NATIVE: (D | SD, 0)}),
    ("A, D and SD clear", BASE | RW, {OFF: (A | D, 0), FAULT: (A | D | SD, 0), NATIVE: (A | D | SD, 0)}),
    ("armed", BASE | A | ARM, {OFF: None, FAULT: (D | SD | RW, ARM), NATIVE: None}),
    ("armed, A clear", BASE | ARM, {OFF: None, FAULT: (A | D | SD | RW, ARM), NATIVE: None}),
    ("armed, D set", BASE | A | D | ARM, {OFF: None, FAULT: (SD | RW, ARM), NATIVE: None}),
    ("armed, D and SD set", BASE | A | D | SD | ARM, {OFF: None, FAULT: (RW, ARM), NATIVE: None}),
    ("read-only", BASE | A, {OFF: None, FAULT: None, NATIVE: None}),
    ("read-only, D and SD set", BASE | A | D | SD, {OFF: None, FAULT: None, NATIVE: None}),
    ("writable with a stray ARM", BASE | RW | A | ARM, {OFF: (D, 0), FAULT: (D | SD, 0), NATIVE: (D | SD, 0)}),
]
ROWS = [
    pytest.param(leaf, track, change, id=f"{name}-{('off', 'fault', 'native')[track]}")
    for name, leaf, changes in TRACK_TABLE
    for track, change in changes.items()
]


@pytest.mark.parametrize("access", [WRITE, RMW])
@pytest.mark.parametrize(("leaf", "track", "change"), ROWS)
def test_track_table(leaf: int, track: int, change: tuple[int, int] | None, access: int) -> None:
    words = tables(LINEAR, leaf)
    before = dict(words)
    seen = walk(words, LINEAR, access, track=track)
    if change is None:
        assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
        unchanged(words, before)
    else:
        assert (seen.outcome, seen.response["physical"]) == (OK, 0x12_3456_7218)
        assert len(seen.swaps) == (change != (0, 0))
        unchanged(words, before, level1=(leaf | change[0]) & ~change[1])


@pytest.mark.parametrize(
    ("leaf", "track", "new"),
    [
        (BASE | A, OFF, BASE | A | D),
        (BASE | A, FAULT, BASE | A | D | SD),
        (BASE | A, NATIVE, BASE | A | D | SD),
        (BASE | A | ARM, OFF, BASE | A | ARM | D),
        (BASE | A | ARM, FAULT, BASE | A | ARM | D | SD),
        (BASE | A | ARM | SAVED, FAULT, BASE | A | ARM | SAVED | D | SD),
        (BASE | A | D | SD, FAULT, BASE | A | D | SD),
    ],
)
def test_supervisor_write_without_wp(leaf: int, track: int, new: int) -> None:
    """[SDM 3A 4.6.1] With CR0.WP=0 RW does not bind the supervisor; RW and ARM are kept."""
    words = tables(LINEAR, leaf)
    before = dict(words)
    assert walk(words, LINEAR, WRITE, user=0, track=track, saved_dirty=1).outcome == OK
    unchanged(words, before, level1=new)


def test_supervisor_write_with_wp() -> None:
    """With CR0.WP the supervisor is judged like a user: an armed leaf is mended, a read-only one faults."""
    words = tables(LINEAR, BASE | A | ARM)
    assert walk(words, LINEAR, WRITE, user=0, control=WP, track=FAULT).outcome == OK
    assert words[slot(LINEAR, 1)] == BASE | A | D | SD | RW
    seen = walk(tables(LINEAR, BASE | A), LINEAR, WRITE, user=0, control=WP, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR)


@pytest.mark.parametrize(("saved_dirty", "kept"), [(0, SAVED), (1, 0)])
def test_saved_dirty(saved_dirty: int, kept: int) -> None:
    """A mend clears SAVED_DIRTY, where the profile has it; else the bit is somebody else's."""
    words = tables(LINEAR, BASE | A | ARM | SAVED)
    before = dict(words)
    walk(words, LINEAR, WRITE, track=FAULT, saved_dirty=saved_dirty)
    unchanged(words, before, level1=BASE | A | D | SD | RW | kept)


def test_saved_dirty_stays_without_a_mend() -> None:
    words = tables(LINEAR, BASE | RW | A | SAVED)
    before = dict(words)
    walk(words, LINEAR, WRITE, track=FAULT, saved_dirty=1)
    unchanged(words, before, level1=BASE | RW | A | D | SD | SAVED)


@pytest.mark.parametrize("denial", ["upper RW", "U/S", "key"])
def test_arm_lifts_nothing_but_rw_of_the_leaf(denial: str) -> None:
    """A mend needs that all else allows the write."""
    words = tables(LINEAR, BASE | A | ARM)
    pkru = 0
    if denial == "upper RW":
        words[slot(LINEAR, 3)] &= ~RW
    elif denial == "U/S":
        words[slot(LINEAR, 1)] &= ~US
    else:
        pkru = 0b10
    before = dict(words)
    seen = walk(words, LINEAR, WRITE, track=FAULT, control=PKE, pkru=pkru)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US | (E_PK if pkru else 0))
    unchanged(words, before)


# Probes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("track", [OFF, FAULT, NATIVE])
@pytest.mark.parametrize("leaf", [BASE, BASE | RW, BASE | ARM, BASE | RW | A | D | SD])
def test_probe_writes_nothing(leaf: int, track: int) -> None:
    """It answers what a write would get, and leaves A, D and soft-dirty as they are."""
    words = tables(LINEAR, leaf, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    before = dict(words)
    seen = walk(words, LINEAR, PROBE, track=track)
    allowed = bool(leaf & RW) or (track == FAULT and bool(leaf & ARM))
    assert (seen.outcome, seen.code) == ((OK, 0) if allowed else (PF, E_P | E_WR | E_US))
    assert seen.cycles == 4 * 1 + 2
    assert seen.swaps == []
    unchanged(words, before)


# The second writer ----------------------------------------------------------------------------------------------------


def disturbed(words: dict[int, int], at: int, level: int, value: int, access: int, **options: Any) -> Seen:
    """A walk in which another writer sets the entry of `level` to `value`, right after the `at`-th read."""

    def write(count: int, address: int) -> None:
        if count == at:
            words[slot(LINEAR, level)] = value

    return walk(words, LINEAR, access, after_read=write, **options)


def test_refused_swap_then_read_only() -> None:
    """RW went away between check and swap: the swap fails, the entry is checked again, the write faults."""
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | A, WRITE, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    assert seen.reads[3:] == [slot(LINEAR, 1)] * 2
    assert seen.swaps == [(slot(LINEAR, 1), BASE | RW | A, BASE | RW | A | D | SD, False)]
    unchanged(words, before, level1=BASE | A)


def test_refused_swap_then_not_present() -> None:
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    gone = FRAME | RW | US
    seen = disturbed(words, 4, 1, gone, WRITE)
    assert (seen.outcome, seen.code) == (PF, E_WR | E_US)
    unchanged(words, before, level1=gone)


def test_refused_swap_then_another_frame() -> None:
    """The answer is by the entry that was marked."""
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, 0x45_0000_0000 | P | RW | US, WRITE, track=NATIVE)
    assert (seen.outcome, seen.response["physical"]) == (OK, 0x45_0000_0218)
    assert [done for *_, done in seen.swaps] == [False, True]
    unchanged(words, before, level1=0x45_0000_0000 | P | RW | US | A | D | SD)


def test_refused_swap_then_nothing_left_to_do() -> None:
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | RW | A | D | SD, WRITE, track=NATIVE)
    assert (seen.outcome, len(seen.swaps)) == (OK, 1)
    unchanged(words, before, level1=BASE | RW | A | D | SD)


def test_refused_mend_then_disarmed() -> None:
    """Fork cleared ARM meanwhile: two tasks share the frame, and the write must fault."""
    words = tables(LINEAR, BASE | A | ARM)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | A, WRITE, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before, level1=BASE | A)


def test_refused_swap_in_an_upper_entry() -> None:
    """The entry is read again, and the walk goes on by its new value."""
    words = tables(LINEAR, LEAF, uppers={3: P | RW | US})
    before = dict(words)
    elsewhere = 0x400000 | P | RW | US
    words[0x400000 + (LINEAR >> 21 & 511) * 8] = before[0x400000 + (LINEAR >> 21 & 511) * 8] = 0
    seen = disturbed(words, 2, 3, elsewhere, READ)
    assert (seen.outcome, seen.code, seen.response["level"]) == (PF, E_US, 2)
    assert seen.reads == [slot(LINEAR, 4), slot(LINEAR, 3), slot(LINEAR, 3), 0x400000 + (LINEAR >> 21 & 511) * 8]
    unchanged(words, before, level3=elsewhere | A)


def test_swaps_may_fail_again_and_again() -> None:
    words = tables(LINEAR, BASE | RW | A)

    def write(count: int, address: int) -> None:
        if 4 <= count < 10:
            words[slot(LINEAR, 1)] ^= 1 << 9

    seen = walk(words, LINEAR, WRITE, after_read=write)
    assert [done for *_, done in seen.swaps] == [False] * 6 + [True]
    assert words[slot(LINEAR, 1)] == BASE | RW | A | D


# Without soft-dirty ---------------------------------------------------------------------------------------------------


def test_no_soft_dirty_has_no_ports() -> None:
    def names(config: WalkerConfig) -> set[str]:
        walker = bench_of(config).walker
        return {*walker.contexts.payload.shape().members, *walker.o_translation.shape().members}

    assert names(WalkerConfig()) - names(NO_SOFT_DIRTY) == {"track", "saved_dirty", "soft_dirty"}


@pytest.mark.parametrize("soft", [0, SD])
@pytest.mark.parametrize("access", [READ, WRITE, RMW])
def test_no_soft_dirty_leaves_bit_11_alone(soft: int, access: int) -> None:
    words = tables(LINEAR, BASE | RW | soft, uppers=dict.fromkeys((2, 3, 4), P | RW | US | soft))
    seen = walk(words, LINEAR, access, config=NO_SOFT_DIRTY)
    assert seen.outcome == OK
    assert len(seen.swaps) == 4
    assert all((old ^ new) & ~(A | D) == 0 for _, old, new, _ in seen.swaps)
    dirty = A if access == READ else A | D
    assert words[slot(LINEAR, 1)] == BASE | RW | soft | dirty


def test_no_soft_dirty_knows_no_arm() -> None:
    words = tables(LINEAR, BASE | A | ARM)
    before = dict(words)
    seen = walk(words, LINEAR, WRITE, config=NO_SOFT_DIRTY)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before)


# The trace port -------------------------------------------------------------------------------------------------------


def test_events() -> None:
    """A record for each swap, done or not, and one for the walk."""
    words = tables(LINEAR, BASE | RW | A)
    seen = disturbed(words, 4, 1, BASE | RW, WRITE)
    common = {"linear": LINEAR, "tag": 0xA5, "level": 1}
    swap = common | {"address": slot(LINEAR, 1), "error": 0}
    assert seen.written == [
        swap | {"old": BASE | RW | A, "new": BASE | RW | A | D, "done": 0},
        swap | {"old": BASE | RW, "new": BASE | RW | A | D, "done": 1},
    ]
    answer = {"outcome": OK, "code": 0, "physical": 0x12_3456_7218, "pwt": 0, "pcd": 0, "pat": 0}
    assert seen.walked == [common | answer]


def test_event_of_a_swap_that_the_bus_refused() -> None:
    seen = walk(tables(LINEAR, BASE | RW | A), LINEAR, WRITE, bus_error=lambda kind, address: kind == "swap")
    assert [(event["done"], event["error"]) for event in seen.written] == [(0, 1)]
    assert [walked["outcome"] for walked in seen.walked] == [BUS]


def test_trace_can_be_left_out() -> None:
    config = WalkerConfig(trace=False)
    assert "o_walked" not in bench_of(config).walker.signature.members
    assert walk(tables(LINEAR, LEAF), LINEAR, config=config).outcome == OK
