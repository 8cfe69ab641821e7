"""The driver without a unit: what it yields, and what it refuses before it yields anything."""

from collections.abc import Callable
from typing import Any

import pytest

from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write, run
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.linux import Track
from ptewalk.rtl.registers.map import BY_NAME

BUILT = {"physical_bits": 40, "soft_dirty": 0}


class Paper:
    """A bus on a dictionary, which notes what is asked of it."""

    def __init__(self, **registers: int) -> None:
        self.words = {BY_NAME[name].offset: value for name, value in registers.items()}
        self.steps: list[tuple[str, int, int] | str] = []

    def read(self, offset: int) -> int:
        self.steps.append(("read", offset, self.words.get(offset, 0)))
        return self.words.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.steps.append(("write", offset, value))

    def wait(self) -> None:
        self.steps.append("wait")


def test_steps_are_taken_in_their_order() -> None:
    def steps() -> Steps[int]:
        first = yield Read(0x000)
        nothing = yield Write(0x004, first + 1)
        yield Wait()
        return nothing + (yield Read(0x008))

    bus = Paper(ID=5, CAPS=7)
    assert run(bus, steps()) == 7
    assert bus.steps == [("read", 0, 5), ("write", 4, 6), "wait", ("read", 8, 7)]


def test_whose_registers_they_are() -> None:
    with pytest.raises(DriverError, match="no ptewalk unit here: ID is 0x0000002a, not 0x57455450"):
        run(Paper(ID=42), Unit.open())
    with pytest.raises(DriverError, match="registers of version 2; this driver is for version 1"):
        run(Paper(ID=0x57455450, VERSION=2 << 16), Unit.open())
    unit = run(Paper(ID=0x57455450, VERSION=1 << 16 | 9, CAPS=3, PARAM0=40 | 5 << 8), Unit.open())
    assert (unit.built["soft_dirty"], unit.built["exclusive"], unit.built["engine"]) == (1, 1, 0)
    assert (unit.built["physical_bits"], unit.built["levels"]) == (40, 5)


def test_a_unit_that_never_ends_or_never_has_room() -> None:
    with pytest.raises(DriverError, match="DRAIN: no room in the command queue after 10000 polls"):
        run(Paper(STATUS=0), Unit(BUILT).drain())
    with pytest.raises(DriverError, match="DRAIN did not end within 10000 polls; is a grant not retired?"):
        run(Paper(STATUS=0b11), Unit(BUILT).drain())


REFUSED: dict[str, Callable[[Unit], Steps[Any]]] = {
    "built without tracking: track must be OFF, not FAULT": lambda unit: unit.context(0, track=Track.FAULT),
    "root must be a multiple of 4096, not 0x1008": lambda unit: unit.context(0x1008),
    r"root must be below 2\*\*40, not 0x10000000000": lambda unit: unit.context(1 << 40),
    "a multiple of 8, not 0x1004": lambda unit: unit.read_word(0x1004),
    r"an address must be below 2\*\*40": lambda unit: unit.read_word(1 << 40),
    "REQUEST_LINEAR has 64 bits": lambda unit: unit.translate(1 << 64),
    "no interrupt other: there are fault, fault_overflow": lambda unit: unit.clear_interrupts("other"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused(line: str) -> None:
    """Before anything is written."""
    bus = Paper()
    with pytest.raises(ValueError, match=line):
        run(bus, REFUSED[line](Unit(BUILT)))
    assert bus.steps == []
