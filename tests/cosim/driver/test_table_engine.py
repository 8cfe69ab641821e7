"""The table engine's driver without a unit: what it makes of a completion, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.driver.steps import DriverError, run
from ptewalk.cosim.driver.table_engine import TableEngine, changing, telling_words
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.registers.map import BY_NAME

from .test_steps import Paper

BUILT = {"physical_bits": 40, "engine": 1, "engine_line_bytes": 128, "lists": 0}
RULES = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
PAGES = Pages(1, 4, 0x40, 0x80)


def told(**fields: int) -> Paper:
    """A unit whose every command ends so, at page 0x60."""
    completion = BY_NAME["TABLE_TOLD"].pack(valid=1, **fields)
    return Paper(STATUS=1 << 1, TABLE_TOLD=completion, TABLE_STOP_LO=0x60, TABLE_CHANGED_LO=3)


@pytest.mark.parametrize("wrong", ["failed", "given_up", "lost"])
def test_what_went_wrong_before_a_leaf_to_split_is_told(wrong: str) -> None:
    """An entry before it was left as it was, or nobody knows: to go on behind would lose it."""
    engine = TableEngine(Unit(BUILT))
    stopped: dict[str, Any] = {"stopped": Stop.NEED_SPLIT}
    assert run(told(**stopped), engine.clear(PAGES, RULES, splits=True)) == (0x60, 3)
    with pytest.raises(DriverError, match=f"a change ended as NEED_SPLIT {wrong} at page 0x60, before 0x80"):
        run(told(**stopped, **{wrong: 1}), engine.clear(PAGES, RULES, splits=True))


def test_what_the_unit_would_cut_off_is_refused() -> None:
    """Root and report beyond its physical addresses: it would use memory elsewhere. Nothing is asked of it."""
    engine, bus = TableEngine(Unit(BUILT)), told()
    far = Pages(1 << 28, 4, 0, 16)
    with pytest.raises(ValueError, match="TABLE_ROOT has 40 bits: 0x10000000000 does not fit"):
        run(bus, engine.run(changing(far, clearing(RULES), RULES)))
    with pytest.raises(ValueError, match="TABLE_ADDRESS has 40 bits: 0x10000000000 does not fit"):
        run(bus, engine.run(telling_words(PAGES, RULES, 1 << 40)))
    with pytest.raises(ValueError, match="TABLE_PAGE has 46 bits: 0x400000000000 does not fit"):
        run(bus, engine.run(changing(Pages(1, 4, 1 << 46, (1 << 46) + 1), clearing(RULES), RULES)))
    with pytest.raises(ValueError, match="room for words must be a multiple of 128, not 0x8040"):
        run(bus, engine.words(PAGES, RULES, 0x8040))
    assert all(offset != BY_NAME["COMMAND"].offset for _, offset, _ in bus.steps)


def test_the_end_of_a_long_range_is_awaited_again() -> None:
    """Polls are bounded, ranges are not: what was begun goes on meanwhile."""
    engine, bus = TableEngine(Unit(BUILT)), told()
    begun = bus.words.pop(BY_NAME["TABLE_TOLD"].offset)
    with pytest.raises(DriverError, match="TABLE was not told after 10000 polls; is a grant not retired"):
        run(bus, engine.clear(PAGES, RULES))
    bus.words[BY_NAME["TABLE_TOLD"].offset] = begun
    (completion,) = run(bus, engine.end())
    assert (completion["page"], completion["changed"]) == (0x60, 3)


def test_what_was_told_before_the_end_is_given_with_it() -> None:
    """The end is awaited in vain after an entry without a home was told: who awaits it again is told of that too."""
    engine, bus = TableEngine(Unit(BUILT), polls=3), told(more=1)
    with pytest.raises(DriverError, match="TABLE was not told after 3 polls"):
        run(OnceTold(bus), engine.run(changing(PAGES, clearing(RULES), RULES)))
    (before, last) = run(told(), engine.end())
    assert (before["more"], before["homeless"], last["more"], last["page"]) == (1, 0, 0, 0x60)


class OnceTold:
    """A unit that shows one completion, until it is taken."""

    def __init__(self, bus: Paper) -> None:
        self._bus, self.wait, self.read = bus, bus.wait, bus.read

    def write(self, offset: int, value: int) -> None:
        """As `driver.steps.Bus`."""
        if offset == BY_NAME["DO"].offset:
            del self._bus.words[BY_NAME["TABLE_TOLD"].offset]
        self._bus.write(offset, value)
