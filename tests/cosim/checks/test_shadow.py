"""The shadow of a memory: it is as the memory, word by word, and tells each word that is not."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.model.memory import BusError, SparseMemory


def both(strict: bool) -> tuple[Shadow, SparseMemory]:
    rng = random.Random(2)
    words = {(frame << 12) + 8 * rng.randrange(512): rng.getrandbits(64) for frame in range(3, 40) for _ in range(4)}
    shadow = Shadow(words, [100], 32, strict=strict)
    return shadow, shadow.memory()


@pytest.mark.parametrize("strict", [False, True])
def test_it_answers_as_the_memory_does(strict: bool) -> None:
    shadow, memory = both(strict)
    arrays = [column.copy() for column in shadow.arrays()]
    frames = [*range(3, 40), 100]
    assert (
        arrays[2].tolist() == frames
        and dict(zip(*(column.tolist() for column in arrays[:2]), strict=True)) == shadow.words
    )
    again, third = Shadow.of(memory), Shadow.of_words(*arrays, 32, strict=strict)
    assert (again.words, again.arrays()[2].tolist(), again.physical_bits) == (shadow.words, frames, 32)
    refused = 0
    places = [*shadow.words, 3 << 12, 100 << 12, 101 << 12, 1 << 32]
    words, there = third.load_many(np.array(places, np.uint64))
    for number, address in enumerate(places):
        for one in (shadow, again, third):
            try:
                expected = memory.load(address)
            except BusError:
                refused += 1
                assert (int(words[number]), bool(there[number])) == (0, False)
                with pytest.raises(BusError):
                    one.load(address)
                with pytest.raises(BusError):
                    one.compare_exchange(address, 0, 1)
            else:
                assert one.load(address) == expected == int(words[number]) and there[number]
                assert not one.compare_exchange(address, expected ^ 1, 5)
                assert one.compare_exchange(address, expected, 7) and one.load(address) == 7
    assert refused == (6 if strict else 3)


def test_many_words_are_written_as_one_by_one() -> None:
    one, many = both(True)[0], both(True)[0]
    at = [*list(one.words)[:5], (7 << 12) + 8 * 511, 100 << 12]
    for number, address in enumerate(at):
        one.store(address, number)
    many.store_many(np.array(at, np.uint64), np.arange(len(at), dtype=np.uint64))
    assert many.words == one.words and many.arrays()[2].tolist() == one.arrays()[2].tolist()
    assert list(many.compare(one.memory())) == []


def test_words_that_are_the_same_differ_nowhere() -> None:
    shadow, memory = both(True)
    assert list(shadow.compare(memory)) == []
    shadow.store(3 << 12, 9)
    memory.store(3 << 12, 9)
    assert list(shadow.compare(memory)) == []
    shadow.store(3 << 12, 0)
    memory.store(3 << 12, 0)
    memory.remove_frame(100)  # a row in the middle, or at the end, is free
    assert list(shadow.compare(memory)) == []


def test_each_word_that_differs_is_told_once() -> None:
    shadow, memory = both(True)
    changed, value = next(iter(shadow.words.items()))
    unexpected = next(address for address in range(5 << 12, 6 << 12, 8) if address not in shadow.words)
    memory.store(changed, value ^ 4)
    memory.store(unexpected, 1)
    assert list(shadow.compare(memory)) == [(changed, value ^ 4, value), (unexpected, 1, 0)]
    memory.store(changed, value)
    memory.store(unexpected, 0)
    shadow.store(unexpected, 3)
    assert list(shadow.compare(memory)) == [(unexpected, 0, 3)]


def test_a_frame_that_is_missing_is_one_of_zeros() -> None:
    shadow, memory = both(True)
    lost = {address: value for address, value in shadow.words.items() if address >> 12 == 4}
    memory.remove_frame(4)
    memory.store(100 << 12, 6)
    told = list(shadow.compare(memory))
    assert told == [*((address, 0, value) for address, value in sorted(lost.items())), (100 << 12, 6, 0)]
