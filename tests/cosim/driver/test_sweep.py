"""What the driver makes of tables word by word is what the golden model makes of arrays, whoever writes in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest

from ptewalk.cosim.driver.steps import DriverError, Steps, run
from ptewalk.cosim.driver.sweep import Leaf, Sweep
from ptewalk.cosim.driver.table_engine import regions_of
from ptewalk.cosim.driver.tables import AddressSpace
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.bulk import clear_refs, pagemap
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import ALL, Entries

from .test_steps import Paper

ROOT, UPPER, MIDDLE, TABLE, OTHER = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
ACCESSED, DIRTY = 1 << 5, 1 << 6
"""Typed by hand [SDM 3A 4-20]."""


class Words:
    """A unit's word accesses on a dictionary; `meanwhile` is done before each swap."""

    def __init__(self, words: dict[int, int], meanwhile: Callable[[dict[int, int]], None] = lambda words: None) -> None:
        self.words, self._meanwhile, self.swaps = words, meanwhile, 0

    def read_word(self, physical: int) -> Steps[int]:
        yield from ()
        return self.words.get(physical, 0)

    def swap_word(self, physical: int, old: int, new: int) -> Steps[bool]:
        yield from ()
        self.swaps += 1
        self._meanwhile(self.words)
        if self.words.get(physical, 0) != old:
            return False
        self.words[physical] = new
        return True

    write_word = Unit.write_word


def sweep(words: Words, first: int, last: int) -> Sweep:
    return Sweep(cast(Unit, words), Pages(ROOT // 0x1000, 4, first, last))


def taken(steps: Steps[Any]) -> Any:
    return run(Paper(), steps)


def tables(entries: dict[int, int], others: dict[int, int] | None = None) -> dict[int, int]:
    """Entries of the first page table, by page, and of the second, which maps page 512 and on."""
    upper = {ROOT: UPPER | 0x27, UPPER: MIDDLE | 0x27, MIDDLE: TABLE | 0x27, MIDDLE + 8: OTHER | 0x27}
    first = {TABLE + 8 * page: entry for page, entry in entries.items()}
    return upper | first | {OTHER + 8 * page: entry for page, entry in (others or {}).items()}


def kernels() -> Iterator[Entries]:
    for profile in PROFILES.values():
        for track in (Track.OFF, Track.FAULT, Track.NATIVE):
            yield Entries(profile, track=track)


def random_entries(rng: random.Random) -> dict[int, int]:
    """Of 24 pages some: present, PROT_NONE, swap-like."""
    return {page: rng.getrandbits(64) & rng.choice((ALL, ALL ^ 1, ALL ^ 0x101)) for page in rng.sample(range(24), 16)}


@pytest.mark.parametrize("rules", list(kernels()), ids=lambda rules: f"{rules.profile.name}-{rules.track.name}")
def test_clear_and_words_are_the_models(rules: Entries) -> None:
    """Over a part of a table; what is outside stays."""
    rng = random.Random(rules.profile.name)
    for permit in (True, False):
        entries = random_entries(rng)
        expected = np.array([entries.get(page, 0) for page in range(24)], np.uint64)
        there = Words(tables(entries))
        assert taken(sweep(there, 0, 24).words(rules)).tolist() == pagemap(expected, rules).tolist()
        part = expected[3:20].copy()
        clear_refs(part, rules, permit=permit)
        changed = [page for page in range(3, 20) if part[page - 3] != expected[page]]
        expected[3:20] = part
        assert taken(sweep(there, 3, 20).clear(rules, permit=permit)) == (20, changed)
        assert [there.words.get(TABLE + 8 * page, 0) for page in range(24)] == expected.tolist()


def test_an_entry_that_changes_meanwhile_is_read_again() -> None:
    """The walker sets A and D before the first swap: they stay, and soft-dirty goes all the same."""
    rules = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)

    def walker(words: dict[int, int]) -> None:
        words[TABLE + 8] |= ACCESSED | DIRTY

    there = Words(tables({1: 0x5807}), walker)
    assert taken(sweep(there, 0, 3).clear(rules)) == (3, [1])
    assert there.words[TABLE + 8] == 0x5007 | ACCESSED | DIRTY
    assert there.swaps == 2


def test_leaves_above_level_1() -> None:
    """A leaf of 2 MiB at page 512: told page by page, cleared at once, or left to who must split it first."""
    rules = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
    words = tables({511: 0x5807}) | {MIDDLE + 8: 0x4000_1887}  # with PAT, which is no bit of the frame
    there = Words(words)
    told = taken(sweep(there, 511, 515).words(rules)).tolist()
    present = 1 << 63 | 1 << 55
    assert told == [present | 5, present | 0x40000, present | 0x40001, present | 0x40002]
    assert taken(sweep(there, 513, 514).words(rules, marks=False)).tolist() == [1 << 63 | 0x40001]
    assert taken(sweep(there, 511, 515).clear(rules, splits=True)) == (512, [511])
    assert taken(sweep(there, 513, 515).make_old(splits=True)) == (513, [])
    assert words[MIDDLE + 8] == 0x4000_1887
    assert taken(sweep(there, 511, 1024).clear(rules)) == (1024, [512])
    assert words[MIDDLE + 8] == 0x4000_1087
    assert taken(sweep(there, 0, 4).leaves())[3] == Leaf(3, 1, TABLE + 24, 0)


def test_ageing_and_protection() -> None:
    """A goes from what has a struct page; of 6.12 what maps nothing becomes a marker of type 31, offset 1."""
    rules = Entries(PROFILES["linux-6.12"])
    words = tables({0: 0x5027, 1: 0x6227, 2: 0x20, 3: 0x7120})
    there = Words(words)
    assert taken(sweep(there, 0, 4).make_old()) == (4, [0, 3])
    assert [words[TABLE + 8 * page] for page in range(4)] == [0x5007, 0x6227, 0x20, 0x7100]
    words |= {TABLE: 0x5047, TABLE + 8: 0}
    taken(sweep(there, 0, 2).protect(rules))
    entry, marker = words[TABLE], words[TABLE + 8]
    assert entry & 1 << 10 and not entry & 2 and entry & 1 << 58  # UFFD_WP, no RW, D saved
    assert (marker >> 59, ~marker >> 9 & 7) == (31, 1)


def test_what_was_written_is_told_as_it_was_when_it_was_protected() -> None:
    """A page is marked before its swap: the word tells it. What is write-protected stays; of none comes a marker."""
    rules = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)

    def walker(words: dict[int, int]) -> None:
        words[TABLE] |= 1 << 11

    entries = {0: 0x5067, 1: 0x6467, 3: rules.make_uffd_marker()}
    there = Words(tables(entries), walker)
    words, changed = taken(sweep(there, 0, 4).take_written(rules))
    due = np.array([0x5867, *(entries.get(page, 0) for page in (1, 2, 3))], np.uint64)
    assert words.tolist() == pagemap(due, rules).tolist() and changed == [0, 2]
    assert regions_of(words, 7) == [(7, 1), (9, 1)]
    assert [there.words[TABLE + 8 * page] for page in (1, 2, 3)] == [0x6467, entries[3], entries[3]]
    assert there.words[TABLE] == rules.pte_mkuffd_wp(0x5867)


def test_moves() -> None:
    """Marked, without write-protection; a marker that says nothing else goes; nothing is overwritten."""
    rules = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
    marker = rules.make_uffd_marker()
    words = tables({1: 0x5407, 2: marker, 4: 0x6005})
    there = Words(words)
    given = {"marks": True, "unprotects": True}
    assert taken(sweep(there, 0, 6).move(512 + 7, 1, rules, **given)) == 3
    assert [words.get(TABLE + 8 * page, 0) for page in range(6)] == [0] * 6
    assert {at: word for at, word in words.items() if at >= OTHER and word} == {
        OTHER + 8 * 8: 0x5807,
        OTHER + 8 * 11: 0x6805,
    }
    words[TABLE] = 0x7007
    with pytest.raises(DriverError, match="page 0x208 is mapped already"):
        taken(sweep(there, 0, 1).move(512 + 8, 1, rules, **given))
    with pytest.raises(DriverError, match="no table of level 1 for page 0x400"):
        taken(sweep(Words(tables({0: 0x5007})), 0, 1).move(1024, 1, rules, **given))


def test_a_table_moves_as_one_entry() -> None:
    rules = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
    words = tables({1: 0x5007}) | {MIDDLE + 8: 0}
    assert taken(sweep(Words(words), 0, 512).move(512, 2, rules, marks=False, unprotects=False)) == 1
    assert (words[MIDDLE], words[MIDDLE + 8]) == (0, TABLE | 0x27)


@pytest.mark.parametrize("linear", [0x7F0000001000, 0xFFFF800000001000])
def test_tables_of_either_half_of_the_addresses(linear: int) -> None:
    """Bits above those that the tables know are in what is invalidated, not in what is looked for."""

    class Forgetting(Words):
        built = MappingProxyType({"engine": 0})
        forgotten: list[int] = []  # noqa: RUF012 - one instance

        def invalidate(self, *kind: Any, linear: int = 0, **how: Any) -> Steps[None]:
            yield from ()
            self.forgotten.append(linear)

    words = Forgetting({})
    space = AddressSpace(cast(Unit, words), iter(range(ROOT, 0x9000, 0x1000)), zeroed=True)
    taken(space.create())
    taken(space.map(linear, 0x9000))
    (at,) = [at for at, word in words.words.items() if word >> 12 == 9]
    words.words[at] |= DIRTY | 1 << 58 | 1 << 11
    assert [bool(word >> 55 & 1) for word in taken(space.pagemap(linear, 2))] == [True, False]
    words.forgotten = []
    assert taken(space.clear(linear, 2)) == 1 and words.forgotten == [linear]
    assert not any(word >> 55 & 1 for word in taken(space.pagemap(linear, 2)))
