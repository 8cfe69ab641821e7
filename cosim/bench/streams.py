"""The protocol level's parts: what watches and serves the walker's streams, a cycle at a time.

Each part has up to two steps in a cycle: `sample`, right before the rising edge that ends the cycle, and `drive`, right
after it, for the next. All parts sample before any part drives, so their order does not matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.lane import Stalls, Status
from ptewalk.cosim.bench.records import EventKind
from ptewalk.model.memory import MASK64, SparseMemory
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_SHIFT, TABLE_ENTRIES, Access, Outcome

__all__ = ["FaultUnitPort", "MemoryResponder", "Pattern", "RuleBroken", "StreamMonitor", "StreamSource", "Wire"]

_ANSWER: Final = (("error", 1), ("id", 2))
_CHANNELS: Final = ("requests", "responses", "reads", "swaps")


class RuleBroken(Exception):
    """A stream's rule was broken; the bench makes a `BenchError` of it."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Pattern:
    """Which channel stalls in which cycle: a fixed function of seed, channel and cycle, the same as in lane.cpp.

    Parameters
    ----------
    stalls : Stalls
    seed : int
        0 to 2**64 - 1.
    """

    def __init__(self, stalls: Stalls, seed: int) -> None:
        self._seed = seed
        self._thresholds = dict(zip(_CHANNELS, stalls.thresholds, strict=True))
        self._offsets = {
            name: (number + 1) * 0x9E3779B97F4A7C15 + seed & MASK64 for number, name in enumerate(_CHANNELS)
        }

    def stalls(self, channel: str, cycle: int) -> bool:
        """True when `channel` ("requests", "responses", "reads" or "swaps") stalls in `cycle`."""
        threshold = self._thresholds[channel]
        if not threshold:
            return False
        x = self._offsets[channel] + cycle * 0xD1B54A32D192ED03 & MASK64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK64
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK64
        return (x ^ x >> 31) >> 32 < threshold


class Wire:
    """An input of the design: written only when its value changes.

    Parameters
    ----------
    handle : cocotb handle
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.value: int | None = None
        """What was driven last; None: not known."""

    def set(self, value: int) -> None:
        """Drive `value`."""
        if value != self.value:
            self._handle.value = value
            self.value = value


class StreamSource:
    """Drives a stream into the design.

    While nothing is offered, valid is 0 and fields hold the complement of what was offered last, so that a design that
    reads them without valid is noticed.

    Parameters
    ----------
    dut : cocotb handle
    name : str
        Of the stream.
    fields : sequence of (str, int)
        Payload fields and their widths in bits; those named in `flip` are complemented.
    flip : sequence of str
    """

    def __init__(self, dut: Any, name: str, fields: Sequence[tuple[str, int]], flip: Sequence[str]) -> None:
        self.valid = Wire(getattr(dut, f"{name}__valid"))
        self._payload = [Wire(getattr(dut, f"{name}__payload__{field}")) for field, _ in fields]
        self._flip = [
            (wire, (1 << width) - 1)
            for wire, (field, width) in zip(self._payload, fields, strict=True)
            if field in flip
        ]

    def reset(self) -> None:
        """Nothing is offered; every field is 0."""
        for wire in (self.valid, *self._payload):
            wire.value = None
            wire.set(0)

    def forget(self) -> None:
        """Someone else drove the payload; valid is 0."""
        self.valid.value = 0
        for wire in self._payload:
            wire.value = None

    def offer(self, payload: Sequence[int]) -> None:
        """Show `payload`, in the order of the fields, until `retract`."""
        for wire, value in zip(self._payload, payload, strict=True):
            wire.set(value)
        self.valid.set(1)

    def retract(self) -> None:
        """Offer nothing from now on."""
        if self.valid.value:
            self.valid.set(0)
            for wire, mask in self._flip:
                wire.set((wire.value or 0) ^ mask)


class StreamMonitor:
    """Watches a stream out of the design, and drives its ready.

    Parameters
    ----------
    dut : cocotb handle
    name : str
        Of the stream.
    fields : sequence of str
        Payload fields.
    unstable : Status
        The rule that is broken when valid or payload change before ready.
    """

    def __init__(self, dut: Any, name: str, fields: Sequence[str], unstable: Status) -> None:
        self._valid = getattr(dut, f"{name}__valid")
        self._payload = [getattr(dut, f"{name}__payload__{field}") for field in fields]
        self._unstable = unstable
        self.ready = Wire(getattr(dut, f"{name}__ready"))
        self._waits: tuple[int, ...] | None = None
        self.valid = False
        """Valid was high in the cycle that was sampled last."""
        self.taken = False
        """A transfer took place in that cycle."""
        self.first = False
        """That cycle was the first in which this transfer was valid."""
        self.payload: tuple[int, ...] = ()
        """The fields in that cycle, when valid."""

    def reset(self) -> None:
        """Not ready, nothing seen."""
        self.ready.value = None
        self.ready.set(0)
        self._waits = None
        self.valid = self.taken = False

    def sample(self) -> None:
        """Look at the cycle that ends; raises `RuleBroken` when the stream changed while it had to wait."""
        self.valid = bool(self._valid.value)
        self.taken = self.valid and bool(self.ready.value)
        self.first = self.valid and self._waits is None
        if self.valid:
            self.payload = tuple(int(handle.value) for handle in self._payload)
        if self._waits is not None and (not self.valid or self.payload != self._waits):
            raise RuleBroken(self._unstable)
        self._waits = self.payload if self.valid and not self.taken else None


class MemoryResponder:
    """Answers reads and swaps out of a `SparseMemory`, `latency` cycles after their transfer.

    An address beyond the memory's physical addresses, or in a frame that a strict memory lacks, gets a bus error; in a
    memory that is not strict such a frame reads as zero.

    Parameters
    ----------
    dut : cocotb handle
    memory : SparseMemory
    on_event : callable (EventKind, address, old, new, done, error)
        Called as an access is answered, in the order of the answers.
    """

    def __init__(
        self, dut: Any, memory: SparseMemory, on_event: Callable[[EventKind, int, int, int, bool, bool], None]
    ) -> None:
        self.reads = StreamMonitor(dut, "memory__reads", ("address", "id"), Status.UNSTABLE_READ)
        self.swaps = StreamMonitor(dut, "memory__swaps", ("address", "old", "new", "id"), Status.UNSTABLE_SWAP)
        self.memory = memory
        self.latency = 1
        self._data = StreamSource(dut, "memory__data", (("value", 64), *_ANSWER), ("value", "error", "id"))
        self._swapped = StreamSource(dut, "memory__swapped", (("done", 1), *_ANSWER), ("done", "error", "id"))
        self._on_event = on_event
        self._due = 0
        self.outstanding: tuple[int, ...] | None = None
        """Address and id of the read, or address, old, new and id of the swap, that was accepted and not answered."""

    def reset(self) -> None:
        """Nothing is outstanding, nothing is answered."""
        self.outstanding = None
        for part in (self.reads, self.swaps, self._data, self._swapped):
            part.reset()

    def forget(self) -> None:
        """Someone else drove the answers' payload and left nothing valid, nothing ready."""
        for source in (self._data, self._swapped):
            source.forget()
        for monitor in (self.reads, self.swaps):
            monitor.ready.value = 0

    def sample(self, cycle: int, walking: bool) -> None:
        """Take the transfers of `cycle`; raises `RuleBroken`. `walking`: a request is in flight in this cycle."""
        self.reads.sample()
        self.swaps.sample()
        asked = self.reads.valid + self.swaps.valid
        if not asked:
            return
        if not walking:
            raise RuleBroken(Status.STRAY_MEMORY)
        if self.outstanding is not None or asked == 2:
            raise RuleBroken(Status.TWO_OUTSTANDING)
        for stream in (self.reads, self.swaps):
            if stream.taken:
                self.outstanding = stream.payload
                self._due = cycle + self.latency

    def drive(self, cycle: int) -> None:
        """Answer what is due in `cycle`."""
        self._data.retract()
        self._swapped.retract()
        if self.outstanding is None or self._due != cycle:
            return
        access, self.outstanding = self.outstanding, None
        address, identity = access[0], access[-1]
        row, error = self._row(address)
        word = address // ENTRY_BYTES % TABLE_ENTRIES
        if len(access) == len(("address", "id")):
            value = 0 if row is None else int(self.memory.words[row, word])
            self._data.offer((value, error, identity))
            self._on_event(EventKind.READ, address, value, value, not error, error)
        else:
            _, old, new, _ = access
            done = row is not None and int(self.memory.words[row, word]) == old
            if done:
                self.memory.words[row, word] = np.uint64(new)
            self._swapped.offer((done, error, identity))
            self._on_event(EventKind.SWAP, address, old, new, done, error)

    def _row(self, address: int) -> tuple[int | None, bool]:
        """The memory's row for `address`, and whether the bus refuses."""
        if address >> self.memory.physical_bits:
            return None, True
        row = self.memory.row_of_frame.get(address >> PAGE_SHIFT)
        return row, row is None and self.memory.strict


class FaultUnitPort:
    """The fault unit's side of `ptewalk_mmu`: takes every fault, retires each grant, and drains when all is done.

    Parameters
    ----------
    dut : cocotb handle
    """

    _COUNTERS = ("marks", "mends", "delivered_faults")

    def __init__(self, dut: Any) -> None:
        self._faults = StreamMonitor(dut, "supervisor__faults", ("linear", "code", "tag"), Status.WRONG_FAULT)
        self._retired = StreamSource(dut, "requester__retired", (("tag", 32),), ())
        self._drain = Wire(dut.supervisor__drain)
        self._drained = dut.supervisor__drained
        self._counters = {name: getattr(dut, name) for name in self._COUNTERS if hasattr(dut, name)}
        self._before: dict[str, int] = {}
        self._expected: deque[tuple[int, int, int]] = deque()
        self._grants: deque[tuple[int, int]] = deque()

    @property
    def pending(self) -> bool:
        """A grant has not retired."""
        return bool(self._grants)

    def reset(self) -> None:
        """Nothing is expected, nothing granted."""
        self._expected.clear()
        self._grants.clear()
        self._faults.reset()
        self._retired.reset()
        self._drain.value = None
        self._drain.set(0)

    def forget(self) -> None:
        """Someone else drove the inputs."""
        self._retired.forget()
        self._faults.ready.value = 0
        self._drain.value = None

    def begin(self) -> None:
        """A batch begins: count from here."""
        self._before = {name: int(handle.value) for name, handle in self._counters.items()}

    def counted(self) -> dict[str, int]:
        """The gateware's own counters since `begin`."""
        return {name: int(handle.value) - self._before[name] & 0xFFFF_FFFF for name, handle in self._counters.items()}

    def answered(self, request: np.void, response: np.void, due: int) -> None:
        """A response was taken: its fault is to come, unless it is a probe's, or its grant retires in cycle `due`."""
        tag = int(response["tag"])
        if response["outcome"] == Outcome.PAGE_FAULT and request["access"] != Access.PROBE:
            self._expected.append((int(request["linear"]), int(response["code"]), tag))
        elif response["outcome"] == Outcome.OK and request["access"] in (Access.WRITE, Access.RMW):
            self._grants.append((due, tag))

    def sample(self) -> None:
        """Take the fault of this cycle; raises `RuleBroken` when it is not the oldest one expected."""
        self._faults.sample()
        if self._faults.taken and (not self._expected or self._expected.popleft() != self._faults.payload):
            raise RuleBroken(Status.WRONG_FAULT)

    def drive(self, cycle: int, over: bool) -> None:
        """What the inputs are to be in `cycle`; `over`: nothing is left to ask."""
        self._faults.ready.set(1)
        self._drain.set(int(over))
        self._retired.retract()
        if self._grants and self._grants[0][0] <= cycle:
            self._retired.offer((self._grants.popleft()[1],))

    def settle(self) -> None:
        """The end of a batch; raises `RuleBroken` when a fault is missing or the drain has not ended."""
        if self._expected:
            raise RuleBroken(Status.MISSING_FAULT)
        if not int(self._drained.value):
            raise RuleBroken(Status.NOT_DRAINED)
