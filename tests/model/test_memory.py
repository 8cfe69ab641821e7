"""Sparse physical memory."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptewalk.model.memory import BusError, FixedMemory, SparseMemory


def test_words_are_where_they_were_put() -> None:
    memory = SparseMemory(40)
    rng = random.Random(1)
    written = {rng.getrandbits(37) * 8: rng.getrandbits(64) for _ in range(200)}
    for address, value in written.items():
        memory.store(address, value)
    assert {address: memory.load(address) for address in written} == written
    assert memory.load(0x8) == 0


def test_store_keeps_64_bits() -> None:
    memory = SparseMemory()
    memory.store(0, 1 << 64 | 5)
    assert memory.load(0) == 5


def test_compare_exchange_writes_only_over_the_old_value() -> None:
    memory = SparseMemory()
    memory.store(0xFF8, 0xFFFF_FFFF_FFFF_FFFF)
    assert not memory.compare_exchange(0xFF8, 1, 2)
    assert memory.load(0xFF8) == 0xFFFF_FFFF_FFFF_FFFF
    assert memory.compare_exchange(0xFF8, 0xFFFF_FFFF_FFFF_FFFF, 2)
    assert memory.load(0xFF8) == 2
    assert memory.load(0xFF0) == 0 and memory.load(0x1000) == 0


def test_strict_memory_has_only_added_frames() -> None:
    memory = SparseMemory(40, strict=True)
    for access in (
        lambda: memory.load(0x5000),
        lambda: memory.store(0x5000, 1),
        lambda: memory.compare_exchange(0x5000, 0, 1),
    ):
        with pytest.raises(BusError, match="no memory at physical address 0x5000"):
            access()
    memory.add_frame(5)
    memory.store(0x5000, 1)
    assert memory.load(0x5000) == 1


@pytest.mark.parametrize("frame", [-1, 1 << 20])
def test_addresses_beyond_the_width_are_bus_errors(frame: int) -> None:
    memory = SparseMemory(32)
    with pytest.raises(BusError):
        memory.add_frame(frame)
    with pytest.raises(BusError) as caught:
        memory.load(frame << 12)
    assert caught.value.address == frame << 12
    assert memory.frames() == []


def test_removed_frame_is_forgotten_and_its_row_used_again_as_zeros() -> None:
    memory = SparseMemory()
    memory.store(0x3008, 7)
    memory.store(0x4008, 8)
    memory.remove_frame(3)
    assert memory.frames() == [4]
    assert not memory.add_frame(9).any()
    assert memory.load(0x3008) == 0 and memory.load(0x4008) == 8


def test_growth_keeps_contents() -> None:
    memory = SparseMemory()
    for frame in range(100):
        memory.store(frame << 12, frame + 1)
    assert [memory.load(frame << 12) for frame in range(100)] == list(range(1, 101))


def test_copy_is_independent() -> None:
    memory = SparseMemory(40, strict=True)
    memory.add_frame(1)
    memory.add_frame(2)
    memory.remove_frame(2)
    twin = memory.copy()
    twin.store(0x1000, 5)
    twin.add_frame(7)
    assert memory.load(0x1000) == 0 and memory.frames() == [1]
    assert twin.strict and twin.physical_bits == 40 and twin.frames() == [1, 7]
    memory.add_frame(8)
    assert memory.frames() == [1, 8]


@pytest.mark.parametrize("count", [0, 1, 15, 300])
def test_exported_hash_table_finds_every_frame_and_no_other(count: int) -> None:
    rng = random.Random(count)
    memory = SparseMemory(52)
    frames = {rng.getrandbits(40) for _ in range(count)}
    for frame in frames:
        memory.add_frame(frame)[3] = frame
    keys, rows, words = memory.export()
    bits = len(keys).bit_length() - 1
    assert len(keys) == 1 << bits == len(rows)

    def find(frame: int) -> int | None:
        slot = (frame * 11400714819323198485 % 2**64) >> (64 - bits)
        while keys[slot]:
            if keys[slot] == frame + 1:
                return int(rows[slot])
            slot = (slot + 1) % len(keys)
        return None

    for frame in frames:
        row = find(frame)
        assert row is not None and words[row, 3] == frame
    assert all(find(frame) is None for frame in (rng.getrandbits(40) for _ in range(50)) if frame not in frames)
    assert words is memory.words and words.dtype == np.uint64


@pytest.mark.parametrize("bits", [12, 53, 0, -1])
def test_width_is_checked(bits: int) -> None:
    with pytest.raises(ValueError, match=f"physical_bits must be 13 to 52, not {bits}"):
        SparseMemory(bits)


@pytest.mark.parametrize("address", [1, 0x1004])
def test_alignment_is_checked(address: int) -> None:
    with pytest.raises(ValueError, match=f"a word's address must be a multiple of 8, not {address:#x}"):
        SparseMemory().load(address)
    memory = SparseMemory()
    memory.add_frame(address >> 12)
    with pytest.raises(ValueError, match=f"a word's address must be a multiple of 8, not {address:#x}"):
        memory.load(address)


def test_exported_hash_table_follows_frames_that_come_and_go() -> None:
    rng = random.Random(7)
    memory = SparseMemory(32)
    memory.add_frame(1)
    memory.export()
    looked_up = 0
    for _ in range(3000):
        frame = rng.randrange(1 << 20)
        if memory.row_of_frame and rng.random() < 0.4:
            frame = rng.choice(list(memory.row_of_frame))
            memory.remove_frame(frame)
        else:
            memory.add_frame(frame)
        if rng.random() < 0.1:
            keys, rows, _ = memory.export()
            for wanted in [frame, *list(memory.row_of_frame)[-5:]]:
                slot = (wanted * 0x9E3779B97F4A7C15 % 2**64) >> (64 - (len(keys).bit_length() - 1))
                while keys[slot] not in (0, wanted + 1):
                    slot = (slot + 1) % len(keys)
                found = int(rows[slot]) if keys[slot] else None
                assert found == memory.row_of_frame.get(wanted)
                looked_up += 1
    assert looked_up > 1000


def test_comparison_names_the_first_word_that_differs() -> None:
    one, two = SparseMemory(), SparseMemory()
    one.store(0x5008, 7)
    two.store(0x5008, 7)
    two.add_frame(9)
    assert one == two, "a frame of zeros is as one that is not there"
    two.store(0x9000, 1)
    one.store(0x5010, 2)
    assert one != two
    assert one.first_difference(two) == (0x5010, 2, 0)
    assert (repr(one), repr(two)) == (
        "<SparseMemory of 1 frames; the word at 0x5010 is 0x2>",
        "<SparseMemory of 2 frames; the word at 0x5010 is 0x0>",
    )
    two.store(0x5010, 2)
    assert one != two and one.first_difference(two) == (0x9000, 0, 1)


def test_a_load_adds_no_frame() -> None:
    memory = SparseMemory()
    assert memory.load(0x7000) == 0
    assert memory.frames() == []


def test_a_memory_made_at_once_is_that_made_word_by_word() -> None:
    rng = random.Random(3)
    words = {rng.getrandbits(37) * 8: rng.getrandbits(64) for _ in range(300)} | {0x8: 0, 0x10: 2**64 - 1}
    memory, other = SparseMemory.of(words, [7, 0x9000], 40, strict=True), SparseMemory(40, strict=True)
    for frame in (7, 0x9000, *(address >> 12 for address in words)):
        other.add_frame(frame)
    for address, value in words.items():
        other.store(address, value)
    assert memory == other and memory.frames() == other.frames() and memory.strict
    assert {address: memory.load(address) for address in words} == words
    assert memory.load(0x7008) == 0
    with pytest.raises(BusError):
        memory.load(0x8000)
    memory.add_frame(8)[1] = 5
    assert memory.load(0x8008) == 5 and memory.load(0x10) == 2**64 - 1


def test_a_memory_made_at_once_checks_what_it_is_given() -> None:
    assert SparseMemory.of({}).frames() == []
    with pytest.raises(ValueError, match="a word's address must be a multiple of 8, not 0x1004"):
        SparseMemory.of({0x1000: 1, 0x1004: 2})
    for frame in (-1, 1 << 20):
        with pytest.raises(BusError):
            SparseMemory.of({0x1000: 1}, [frame], 32)


def test_a_fixed_memory_lies_where_it_was_put() -> None:
    words = np.zeros((8, 512), np.uint64)
    removed: list[int] = []
    memory = FixedMemory(words, removed.append)
    memory.store(0x5008, 77)
    assert words[5, 1] == 77
    assert memory.add_frame(5).base is not None and memory.frames() == [5]
    keys, rows, exported = memory.export()
    assert exported is words and 6 in keys and rows[list(keys).index(6)] == 5
    memory.remove_frame(5)
    assert removed == [5] and not words.any()
    memory.store(0x2000, 1)
    assert words[2, 0] == 1 and 3 in memory.export()[0]
    with pytest.raises(BusError):
        memory.store(0x8000, 1)


def test_a_fixed_memory_has_pages_for_rows() -> None:
    with pytest.raises(ValueError, match=r"words must have the shape \(frames, 512\), not \(8, 4\)"):
        FixedMemory(np.zeros((8, 4), np.uint64))
