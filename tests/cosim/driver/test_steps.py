"""The driver without a unit: what it yields, and what it refuses before it yields anything."""

from collections.abc import Callable
from typing import Any

import pytest

from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write, run
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.linux import Track
from ptewalk.rtl.registers.map import BY_NAME

BUILT = {"physical_bits": 40, "soft_dirty": 0, "selftest": 1, "exclusive_ids": 1, "line_bytes": 8}


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


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (0b0111_1111, None),
        (0b0011_1111, None),
        (0b0110_1111, "does not hold: So does one of a single byte inside the word."),
        (0b0100_0101, "does not hold: An exclusive read and an exclusive write succeed. A plain write of another ID"),
        (0b1000_0001, "the bus refuses an access at 0xfff0; name memory that is there"),
        (0b0000_0000, "SELFTEST.ran is 0"),
    ],
)
def test_the_self_test_at_start(found: int, says: str | None) -> None:
    """All but `two` must hold. Nothing is tried where no memory is named for it, or where that is block RAM."""
    words = {"ID": 0x57455450, "VERSION": 1 << 16, "CAPS": 0b1011, "PARAM0": 40, "STATUS": 1 << 1}
    bus = Paper(**words, SELFTEST=found)
    if says is None:
        run(bus, Unit.open(scratch=0xFFF0))
    else:
        with pytest.raises(DriverError, match=says):
            run(bus, Unit.open(scratch=0xFFF0))
    assert [step for step in bus.steps if step[0] == "write"] == [
        ("write", 0x120, 0xFFF0),
        ("write", 0x124, 0),
        ("write", 0x02C, 7),
    ]
    for untried, scratch in ((bus, None), (Paper(**words | {"CAPS": 0b0001}), 0xFFF0)):
        untried.steps.clear()
        run(untried, Unit.open(scratch=scratch))
        assert all(step[0] == "read" for step in untried.steps)


@pytest.mark.parametrize(
    ("engine", "found", "limits"),
    [
        (False, 4 << 16, 0),
        (False, 3 << 16, 2),
        (False, 0, 1),
        (True, 4 << 16 | 0b111 << 8, 0),
        (True, 3 << 16 | 0b111 << 8, 1 << 8 | 1),
        (True, 4 << 16 | 0b101 << 8, 1 << 8 | 1),
    ],
)
def test_what_a_unit_falls_back_to(engine: bool, found: int, limits: int) -> None:
    """Walkers share what holds; an engine has all of it, or words by the walker's one."""
    line_bytes = 128 if engine else 8
    words = {"CAPS": 0b1011 | engine << 5, "PARAM0": 40, "PARAM1": 64 | line_bytes << 16 | 4 << 24, "STATUS": 1 << 1}
    bus = Paper(ID=0x57455450, VERSION=1 << 16 | 10, SELFTEST=0b0111_1111 | found, **words)
    run(bus, Unit.open(scratch=0xF000))
    assert [step for step in bus.steps if step[0] == "write"][-1] == ("write", BY_NAME["LIMITS"].offset, limits)


def test_a_unit_that_cannot_try_its_memory() -> None:
    """Gateware of before SELFTEST, on a bus: opened without scratch only, and nothing is written."""
    bus = Paper(ID=0x57455450, VERSION=1 << 16, CAPS=0b0011, PARAM0=40)
    with pytest.raises(
        DriverError, match=r"^this unit cannot try its memory: version 1\.0 with CAPS.selftest 0; leave"
    ):
        run(bus, Unit.open(scratch=0xFFF0))
    assert all(step[0] == "read" for step in bus.steps)
    assert not run(bus, Unit.open()).built["selftest"]


REFUSED: dict[str, Callable[[Unit], Steps[Any]]] = {
    "built without tracking: track must be OFF, not FAULT": lambda unit: unit.context(0, track=Track.FAULT),
    "root must be a multiple of 4096, not 0x1008": lambda unit: unit.context(0x1008),
    r"root must be below 2\*\*40, not 0x10000000000": lambda unit: unit.context(1 << 40),
    "a multiple of 8, not 0x1004": lambda unit: unit.read_word(0x1004),
    r"an address must be below 2\*\*40": lambda unit: unit.read_word(1 << 40),
    "REQUEST_LINEAR has 64 bits": lambda unit: unit.translate(1 << 64),
    "this unit has no self-test: CAPS.selftest is 0": lambda unit: Unit({**BUILT, "selftest": 0}).self_test(0x1000),
    r"scratch must be a multiple of 16 below 2\*\*40, not 0x1008": lambda unit: unit.self_test(0x1008),
    "no interrupt other: there are fault, fault_overflow": lambda unit: unit.clear_interrupts("other"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused(line: str) -> None:
    """Before anything is written."""
    bus = Paper()
    with pytest.raises(ValueError, match=line):
        run(bus, REFUSED[line](Unit(BUILT)))
    assert bus.steps == []
