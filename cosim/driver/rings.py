"""Commands of the table engine from a ring in memory: descriptors, and completions. Meaning: docs/registers.md.

Who can reach the rings writes and reads them there: `descriptor` says what, `places` and `done_places` where, `give`
begins, `told` says which completions there are, `done` what their words say, and `release` makes room. `run` does all
of it by the unit's own memory window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write
from ptewalk.cosim.driver.table_engine import words_of
from ptewalk.cosim.driver.unit import POLLS, Unit
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_BYTES
from ptewalk.rtl.registers.map import BY_NAME, Command

__all__ = ["RingOfCommands"]

_COUNTS: Final = 1 << 16
_DESCRIPTOR: Final = 8
_DONE: Final = 4
_FIRST: Final = BY_NAME["TABLE_ROOT_LO"].offset
_INSIDE: Final = range(_FIRST, _FIRST + ENTRY_BYTES * _DESCRIPTOR, 4)
"""Registers that a descriptor holds; the others of a command are the masks that all of a run share."""
_SIZES: Final = tuple(1 << power for power in range(16))


class RingOfCommands:
    """Both rings of a unit, as this driver set them up.

    Parameters
    ----------
    unit : Unit

    Raises
    ------
    ValueError
        It was built without rings.
    """

    def __init__(self, unit: Unit) -> None:
        if not unit.built["rings"]:
            raise ValueError("this unit was built without rings: CAPS.rings is 0")
        self._unit = unit
        self._base = self._done_base = 0
        self._size = self._done_size = 1
        self._head = self._done_head = 0

    def set_up(self, base: int, size: int, done_base: int, done_size: int) -> Steps[None]:
        """Where the rings are, and how many descriptors and completions they hold. No RING is in work.

        Parameters
        ----------
        base, done_base : int
            Physical addresses, multiples of 4096.
        size, done_size : int
            Powers of two, 1 to 32768.

        Raises
        ------
        ValueError
            A value is none, or does not fit.
        """
        bits = self._unit.built["physical_bits"]
        for name, at in (("base", base), ("done_base", done_base)):
            if at % PAGE_BYTES or at < 0 or at >> bits:
                raise ValueError(f"{name} must be a multiple of {PAGE_BYTES} below 2**{bits}, not {at:#x}")
        for name, count in (("size", size), ("done_size", done_size)):
            if count not in _SIZES:
                raise ValueError(f"{name} must be a power of two from 1 to 32768, not {count}")
        for name, at in (("RING_BASE", base), ("DONE_BASE", done_base)):
            yield Write(BY_NAME[f"{name}_LO"].offset, at & 0xFFFF_FFFF)
            yield Write(BY_NAME[f"{name}_HI"].offset, at >> 32)
        powers = {"size": size.bit_length() - 1, "done_size": done_size.bit_length() - 1}
        yield Write(BY_NAME["RING"].offset, BY_NAME["RING"].pack(**powers))
        self._base, self._size, self._done_base, self._done_size = base, size, done_base, done_size
        counts = BY_NAME["RING_TAIL"].unpack((yield Read(BY_NAME["RING_TAIL"].offset)))
        self._head, self._done_head = counts["value"], counts["told"]
        yield Write(BY_NAME["RING_HEAD"].offset, self._head)
        yield Write(BY_NAME["DONE_HEAD"].offset, self._done_head)

    def descriptor(self, command: Mapping[str, Any], identity: int, *, pcid: int = 0) -> list[int]:
        """The eight words of a command by the names of `CommandLayout`; ValueError where a value does not fit."""
        words = self._registers(command, pcid) | {BY_NAME["TABLE_ID"].offset: BY_NAME["TABLE_ID"].pack(value=identity)}
        if command.get("lists"):
            raise ValueError("a list is no command of a ring: its records are named by registers")
        pairs = zip(_INSIDE[::2], _INSIDE[1::2], strict=True)
        return [words.get(low, 0) | words.get(high, 0) << 32 for low, high in pairs]

    def stage(self, command: Mapping[str, Any]) -> Steps[None]:
        """The masks of a command, which all descriptors share until the next call; no RING is in work."""
        for offset, word in self._registers(command, 0).items():
            if offset not in _INSIDE and self._unit.staged.get(offset) != word:
                yield Write(offset, word)
                self._unit.staged[offset] = word

    def places(self, count: int) -> list[int]:
        """Where the next descriptors go."""
        numbers = range(self._head, self._head + count)
        return [self._base + ENTRY_BYTES * _DESCRIPTOR * (number % self._size) for number in numbers]

    def give(self, count: int) -> Steps[None]:
        """The next descriptors are there, and are done in their turn among the unit's commands.

        Raises
        ------
        ValueError
            The ring does not hold so many.
        """
        yield from self._check_room(count)
        self._head = (self._head + count) % _COUNTS
        for offset in _INSIDE:
            self._unit.staged.pop(offset, None)
        yield Write(BY_NAME["RING_HEAD"].offset, self._head)
        yield from self._unit.begin(Command.RING)

    def _check_room(self, count: int) -> Steps[None]:
        tail = BY_NAME["RING_TAIL"].unpack((yield Read(BY_NAME["RING_TAIL"].offset)))["value"]
        if (self._head - tail) % _COUNTS + count > self._size:
            raise ValueError(f"a ring of {self._size} does not hold {count} descriptors more")

    def told(self) -> Steps[range]:
        """The numbers of the completions that wait."""
        told = BY_NAME["RING_TAIL"].unpack((yield Read(BY_NAME["RING_TAIL"].offset)))["told"]
        return range(self._done_head, self._done_head + (told - self._done_head) % _COUNTS)

    def done_places(self, numbers: Iterable[int]) -> list[int]:
        """Where completions are."""
        return [self._done_base + ENTRY_BYTES * _DONE * (number % self._done_size) for number in numbers]

    def holds(self, word: int, number: int) -> bool:
        """Whether the first word at its place is that completion's, as its phase says.

        In a ring that was zeroed, of the first one that was set up since the reset: in a later one the first round may
        be one whose phase is 0.
        """
        return word >> 63 == 1 - number // self._done_size % 2

    def done(self, words: Sequence[int]) -> dict[str, int]:
        """What the four words of a completion say, by the names of `CompletionLayout`, and `id`."""
        first, page, changed, last = words
        found = BY_NAME["TABLE_TOLD"].unpack(first >> 32 & 0x7FFF_FFFF)
        del found["valid"]
        return found | {"id": first & 0xFFFF, "page": page, "changed": changed, "last": last}

    def release(self, count: int) -> Steps[None]:
        """Software is done with so many more completions."""
        self._done_head = (self._done_head + count) % _COUNTS
        yield Write(BY_NAME["DONE_HEAD"].offset, self._done_head)

    def run(self, commands: Sequence[Mapping[str, Any]], *, pcid: int = 0) -> Steps[list[dict[str, int]]]:
        """Commands of one set of masks, by the memory window; their completions, whose `id` is the command's place.

        Raises
        ------
        ValueError
            Their masks differ, a ring does not hold so many, or there is a move, which may tell several completions.
        DriverError
            They do not end within their polls, the bus refused a completion, or there are some that nobody released.
        """
        if any(one.get("moves") for one in commands):
            raise ValueError("a move may tell several completions: give it to the ring, and take what is told")
        sets = [{at: word for at, word in self._registers(one, 0).items() if at not in _INSIDE} for one in commands]
        if any(one != sets[0] for one in sets):
            raise ValueError("commands of one run share their masks: these differ")
        if len(commands) > self._done_size:
            raise ValueError(f"a ring of {self._done_size} does not hold {len(commands)} completions")
        if waiting := (yield from self.told()):
            raise DriverError(f"{len(waiting)} completions wait: release them first")
        yield from self._check_room(len(commands))
        yield from self.stage(commands[0])
        for identity, (command, place) in enumerate(zip(commands, self.places(len(commands)), strict=True)):
            for number, word in enumerate(self.descriptor(command, identity, pcid=pcid)):
                yield from self._unit.write_word(place + ENTRY_BYTES * number, word)
        yield from self.give(len(commands))
        for _ in range(POLLS):
            numbers = yield from self.told()
            if len(numbers) >= len(commands):
                break
            yield Wait()
        else:
            raise DriverError(f"{len(numbers)} of {len(commands)} commands were told after {POLLS} polls")
        yield from self._unit.await_end(Command.RING)
        found: list[dict[str, int]] = []
        for place in self.done_places(numbers):
            words = []
            for number in range(_DONE):
                words.append((yield from self._unit.read_word(place + ENTRY_BYTES * number)))
            if not self.holds(words[0], numbers[len(found)]):
                raise DriverError(f"the bus refused the completion at {place:#x}: its command was done")
            found.append(self.done(words))
        yield from self.release(len(found))
        return found

    def _registers(self, command: Mapping[str, Any], pcid: int) -> dict[int, int]:
        built = self._unit.built
        return dict(words_of(command, pcid, built["physical_bits"], lists=bool(built["lists"])))
