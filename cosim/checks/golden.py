"""The golden side of a batch: the model eats the event log, and says what every port had to tell.

Each request that the monitor saw is translated by the model. Its reads and conditional writes are those of the event
log, in order: an access that the model does not make, or makes elsewhere, or with other values, differs. Reads are
compared with a shadow memory, in which the log's writes are done. The model's answer, and what follows from the log for
the trace port, the fault queue and the counters, is what the gateware must have told.

`golden_arrays` does so for all requests at once. Where it finds anything that differs they are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.conditions import BatchResult
from ptewalk.cosim.bench.records import (
    FAULT,
    REQUEST,
    RESPONSE,
    TRANSLATION,
    WRITTEN,
    EventKind,
    Records,
    decode,
    describe_record,
    encode_result,
    merge_tags,
    relevant,
)
from ptewalk.cosim.checks.covered import SWAP
from ptewalk.cosim.checks.golden_arrays import Eaten, eat
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import Request, Result, State, Translated, translate
from ptewalk.model.translation import Translation, translation
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, PAGE_SHIFT, TABLE_ENTRIES, Access, Control, EntryBit, Outcome
from ptewalk.rtl.description import DesignDescription

__all__ = ["Golden", "Verdict", "compare_responses"]

_ADDRESS, _OLD, _NEW, _REQUEST, _KIND, _DONE, _ERROR = range(7)
"""Places in an `EVENT` as a tuple."""
_END: Final = (0, 0, 0, -1, -1, 0, 0)
"""What stands behind the last event."""
_MARK: Final = 1 << SoftBit.SOFT_DIRTY
_RW: Final = 1 << EntryBit.RW
_LA57: Final = 1 << Control.LA57
_ACCESSES: Final = tuple(Access)
_TRACKS: Final = tuple(Track)
_ASKED: Final = itemgetter(
    *map(
        (REQUEST.names or ()).index,
        ("root", "control", "pkru", "pkrs", "track", "saved_dirty", "linear", "access", "user", "implicit", "ac"),
    )
)
"""What `Golden` asks the model of a `REQUEST` as a tuple."""
_MOST: Final = 20
"""Differences that are told in words."""


class _LogDiffers(Exception):
    """The model's access is not the log's."""


@dataclass
class Verdict:
    """What the golden model says of a batch.

    Attributes
    ----------
    expected : Records (n,)
        `RESPONSE` records, as far as they count.
    differences : list of str
        What differs beside the responses, one line each; at most a few of them.
    differ : int
        How many there are.
    events, traced, words : int
        Accesses of the log; translations, records of trace port and fault queue; and words of memory that were
        compared.
    depths : int64 array (n,)
        Entries that each walk read.
    swaps : Records
        All that were made, `covered.SWAP` records.
    """

    expected: Records
    differences: list[str] = field(default_factory=list)
    differ: int = 0
    events: int = 0
    traced: int = 0
    words: int = 0
    depths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    swaps: Records = field(default_factory=lambda: np.zeros(0, SWAP))

    def wrong(self, text: str) -> None:
        """Count a difference."""
        self.differ += 1
        if len(self.differences) < _MOST:
            self.differences.append(text)


class _Log:
    """A memory for the model that answers as the log says, and checks that it is asked what the log says.

    Parameters
    ----------
    events : sequence of tuple
    physical_bits : int
    shadow : Shadow or None
        The memory before the batch, in which the log's writes are done; None: reads are not compared.
    refusals : bool
        The bus may refuse any access.
    """

    def __init__(
        self, events: Sequence[tuple[Any, ...]], physical_bits: int, shadow: Shadow | None, refusals: bool
    ) -> None:
        self.physical_bits = physical_bits
        self._events, self._shadow, self._refusals = [*events, _END], shadow, refusals
        self._at = self._request = 0
        self._again = False  # a swap failed: the same entry is read again
        self.entries: list[tuple[int, int]] = []
        """(address, value) of the entries that this walk has come to, as it leaves them."""
        self.written: list[tuple[Any, ...]] = []
        """(request, depth, event) of each swap."""
        self.instead: dict[int, int] = {}
        """Place in `written` of a swap that failed to what was read there then."""

    def begin(self, request: int) -> None:
        """The request of this index is accepted."""
        self._request, self.entries, self._again = request, [], False
        if self._events[self._at][_KIND] == EventKind.FOREIGN:
            self._foreign()

    def load(self, address: int) -> int:
        """As `model.paging.Memory`."""
        event = self._events[self._at]
        seen, value, _, request, kind, _, error = event
        if request != self._request or kind != EventKind.READ or seen != address:
            raise self._another(event, EventKind.READ, address)
        self._at += 1
        if self._again:
            self._again = False
            self.entries[-1] = address, value
            if not error:
                self.instead[len(self.written) - 1] = value
        else:
            self.entries.append((address, value))
        if self._shadow is not None and (error or self._shadow.words.get(address) != value):
            self._check_read(self._shadow, address, value, error)
        if self._events[self._at][_KIND] == EventKind.FOREIGN:
            self._foreign()
        if error:
            raise BusError(address)
        return int(value)

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        event = self._events[self._at]
        seen, before, after, request, kind, done, error = event
        if request != self._request or kind != EventKind.SWAP or seen != address:
            raise self._another(event, EventKind.SWAP, address)
        self._at += 1
        if (before, after) != (old, new):
            raise _LogDiffers(
                f"swap at {address:#x}: captured {before:#x} to {after:#x}, expected {old:#x} to {new:#x}"
            )
        self.written.append((self._request, len(self.entries), event))
        done = bool(done)
        if self._shadow is not None and not error and self._shadow.compare_exchange(address, old, new) != done:
            word = self._shadow.load(address)
            raise _LogDiffers(f"swap at {address:#x}: done is {done}, and the word was {word:#x}")
        self._again = not done
        if error:
            raise BusError(address)
        if done:
            self.entries[-1] = address, new
        return done

    def end(self) -> None:
        """The walk is over: no access may be left. Raises `_LogDiffers`."""
        event = self._events[self._at]
        if event[_REQUEST] == self._request:
            raise _LogDiffers(f"{EventKind(event[_KIND]).name} at {event[_ADDRESS]:#x} that the model does not make")

    def skip(self) -> None:
        """Pass by what the log still has of this request."""
        while (event := self._events[self._at])[_REQUEST] == self._request:
            if event[_KIND] == EventKind.SWAP and event[_DONE] and self._shadow is not None:
                self._shadow.store(event[_ADDRESS], event[_NEW])
            self._at += 1
            self._foreign()

    def _another(self, event: tuple[Any, ...], kind: EventKind, address: int) -> _LogDiffers:
        if event[_REQUEST] != self._request:
            return _LogDiffers(f"no access captured, expected {kind.name} at {address:#x}")
        seen = f"{EventKind(event[_KIND]).name} at {event[_ADDRESS]:#x}"
        return _LogDiffers(f"captured {seen}, expected {kind.name} at {address:#x}")

    def _check_read(self, shadow: Shadow, address: int, value: int, error: int) -> None:
        try:
            wanted = shadow.load(address)
        except BusError:
            if not error:
                raise _LogDiffers(f"read at {address:#x}: captured {value:#x}, expected a bus error") from None
            return
        if error and not self._refusals:
            raise _LogDiffers(f"read at {address:#x}: captured a bus error, expected {wanted:#x}")
        if not error and value != wanted:
            raise _LogDiffers(f"read at {address:#x}: captured {value:#x}, expected {wanted:#x}")

    def _foreign(self) -> None:
        """Do the second writer's writes that come next."""
        while (event := self._events[self._at])[_KIND] == EventKind.FOREIGN:
            if self._shadow is not None:
                self._shadow.store(event[_ADDRESS], event[_NEW])
            self._at += 1


class Golden:
    """The golden side of batches on one design.

    Parameters
    ----------
    design : DesignDescription
        Its parameters are the golden model's.
    one_by_one : bool
        Never judge all requests of a batch at once.
    """

    def __init__(self, design: DesignDescription, *, one_by_one: bool = False) -> None:
        self._one_by_one = one_by_one
        self._design = design
        parameters = design.parameters
        self._soft_dirty = bool(parameters["soft_dirty"])
        self._five = parameters["levels"] == LEVELS_5
        self._gigabyte = bool(parameters["gigabyte_pages"])
        self._translates = bool(design.group("translation"))
        self._traces = design.stream("walked") is not None
        self._writes = design.stream("written") is not None
        self._queues = design.stream("faults") is not None
        self._depth = int(parameters.get("fault_depth", 0))
        self._counters = [name for name in ("marks", "mends", "delivered_faults") if design.pin(name) is not None]

    def judge(
        self,
        result: BatchResult,
        *,
        physical_bits: int,
        shadow: Shadow | None = None,
        memory: SparseMemory | None = None,
        refusals: bool = False,
    ) -> Verdict:
        """Compare what a batch told with what the model says to the requests that the monitor saw.

        Parameters
        ----------
        result : BatchResult
        physical_bits : int
            MAXPHYADDR of the memory.
        shadow : Shadow, optional
            The memory before the batch; changed. Without it reads are taken as the log has them.
        memory : SparseMemory, optional
            The memory after the batch, compared with `shadow` word by word.
        refusals : bool
            The bus may refuse any access: `Conditions.errors`.
        """
        verdict = Verdict(np.zeros(0, RESPONSE))
        eaten = None
        if len(result.responses) == len(result.requests) and not self._one_by_one:
            eaten = eat(
                result.events,
                result.requests,
                physical_bits,
                shadow,
                refusals=refusals,
                five=self._five,
                soft_dirty=self._soft_dirty,
                gigabyte_pages=self._gigabyte,
            )
        if eaten is None:
            eaten = self._eat(result, _Log(result.events.tolist(), physical_bits, shadow, refusals), verdict)
        verdict.depths, verdict.swaps = eaten.depths, eaten.swaps
        verdict.events = len(result.events)
        verdict.expected = merge_tags(eaten.expected, result.requests)
        self._judge_translations(result, eaten, verdict)
        self._judge_trace(result, verdict)
        self._judge_faults(result, verdict)
        self._judge_counters(result, verdict)
        if memory is not None and shadow is not None:
            _compare_memory(memory, shadow, verdict)
        return verdict

    def _eat(self, result: BatchResult, log: _Log, verdict: Verdict) -> Eaten:
        """Request by request, with a line for each that differs."""
        results: list[Result] = []
        depths: list[int] = []
        found: dict[int, Translation] = {}
        for index, (state, request) in enumerate(self._asked(result.requests)):
            if index == len(result.responses):
                break
            log.begin(index)
            try:
                outcome = translate(log, state, request)
                log.end()
                results.append(outcome)
                if isinstance(outcome, Translated):
                    found[index] = translation(log.entries, outcome, soft_dirty=self._soft_dirty)
            except _LogDiffers as difference:
                verdict.wrong(f"request {index}: {difference}")
                del results[index:]
                log.skip()
                # The model's answer cannot be known: that of the gateware stands, and the difference is told above.
                results.append(decode(result.responses[index]))
            depths.append(len(log.entries))
        swaps = [
            (
                *(event[_ADDRESS], event[_OLD], event[_NEW], log.instead.get(place, 0), request, depth),
                *(event[_DONE], event[_ERROR], place in log.instead),
            )
            for place, (request, depth, event) in enumerate(log.written)
        ]
        return Eaten(
            encode_result(results),
            np.array(list(found), np.int64),
            np.array(list(found.values()), TRANSLATION),
            np.array(depths, np.int64),
            np.array(swaps, SWAP),
        )

    def _asked(self, requests: Records) -> Iterator[tuple[State, Request]]:
        """As `records.state_and_request`, for many."""
        for row in requests.tolist():
            root, control, pkru, pkrs, track, saved, linear, access, user, implicit, ac = _ASKED(row)
            yield (
                State(
                    root << PAGE_SHIFT,
                    control if self._five else control & ~_LA57,
                    pkru,
                    pkrs,
                    _TRACKS[track],
                    bool(saved),
                    self._soft_dirty,
                    self._gigabyte,
                ),
                Request(linear, _ACCESSES[access], bool(user), bool(implicit), bool(ac)),
            )

    def _judge_translations(self, result: BatchResult, eaten: Eaten, verdict: Verdict) -> None:
        """What stands beside each OK that the model says too."""
        if not self._translates:
            return
        if len(result.translations) != len(result.responses):
            verdict.wrong(f"{len(result.translations)} translations beside {len(result.responses)} responses")
            return
        told = result.responses["outcome"][eaten.allowed] == Outcome.OK
        places = eaten.allowed[told]
        seen = result.translations[places]
        _compare("translation of request", seen, eaten.translations[told], verdict, places.tolist())

    def _judge_trace(self, result: BatchResult, verdict: Verdict) -> None:
        requests, swaps = result.requests, verdict.swaps
        if self._writes:
            asked = requests[swaps["request"]]
            five = (asked["control"] & _LA57 != 0) & self._five
            expected = np.zeros(len(swaps), WRITTEN)
            for name in ("linear", "tag"):
                expected[name] = asked[name]
            for name in ("address", "old", "new"):
                expected[name] = swaps[name]
            expected["level"] = np.where(five, LEVELS_5, LEVELS_4) - swaps["depth"] + 1
            expected["done"], expected["error"] = swaps["done"] & ~swaps["refused"], swaps["refused"]
            _compare("trace of a swap", result.written, expected, verdict)
        if self._traces:
            expected = np.zeros(len(result.responses), result.walked.dtype)
            expected["linear"] = requests["linear"][: len(expected)]
            for name in expected.dtype.names or ():
                if name != "linear":
                    expected[name] = result.responses[name]
            _compare("trace of a walk", result.walked, expected, verdict)

    def _judge_faults(self, result: BatchResult, verdict: Verdict) -> None:
        if not self._queues:
            return
        faulted = result.responses["outcome"] == Outcome.PAGE_FAULT
        faulted &= result.requests["access"][: len(faulted)] != Access.PROBE
        expected = np.zeros(int(faulted.sum()), FAULT)
        expected["linear"] = result.requests["linear"][: len(faulted)][faulted]
        expected["tag"] = result.responses["tag"][faulted]
        expected["code"] = result.responses["code"][faulted]
        lost = result.counters.lost_faults
        if lost and result.counters.most_faults < self._depth:  # a full queue loses beside a record that is taken, too
            verdict.wrong(f"{lost} faults lost, and the queue was never full")
        if not lost:
            _compare("record of the fault queue", result.faults, expected, verdict)
            return
        verdict.traced += len(result.faults)
        if len(result.faults) + lost != len(expected):
            verdict.wrong(f"{len(result.faults)} faults told and {lost} lost, expected {len(expected)}")
        rest = iter(expected.tolist())
        for row in result.faults.tolist():
            if row not in rest:  # which goes on where it stopped: the records must come in order
                verdict.wrong(f"record of the fault queue that no page fault was answered for: {row}")
                return

    def _judge_counters(self, result: BatchResult, verdict: Verdict) -> None:
        done = verdict.swaps[verdict.swaps["done"] & ~verdict.swaps["refused"]]
        gained = done["new"] & ~done["old"]
        faulted = result.responses["outcome"] == Outcome.PAGE_FAULT
        expected = {
            "marks": int((gained & np.uint64(_MARK) != 0).sum()),
            "mends": int((gained & np.uint64(_RW) != 0).sum()),
            "delivered_faults": int((faulted & (result.requests["access"][: len(faulted)] != Access.PROBE)).sum()),
        }
        for name in self._counters:
            seen = getattr(result.counters, name)
            if seen != expected[name]:
                verdict.wrong(f"counter {name}: captured {seen}, expected {expected[name]}")


def _compare(
    what: str, seen: Records, expected: Records, verdict: Verdict, places: Sequence[int] | None = None
) -> None:
    """Compare two logs record by record; `places` are their numbers where they are not in a row."""
    verdict.traced += len(expected)
    both = min(len(seen), len(expected))
    for index in np.flatnonzero(seen[:both] != expected[:both]).tolist():
        captured, wanted = describe_record(seen[index]), describe_record(expected[index])
        fields = ", ".join(f"{k} {v}, expected {wanted[k]}" for k, v in captured.items() if v != wanted[k])
        verdict.wrong(f"{what} {index if places is None else places[index]}: captured {fields}")
    if len(seen) != len(expected):
        verdict.wrong(f"{what}: {len(seen)} captured, expected {len(expected)}")


def _compare_memory(seen: SparseMemory, expected: Shadow, verdict: Verdict) -> None:
    verdict.words += len(expected.arrays()[2]) * TABLE_ENTRIES
    for address, captured, wanted in expected.compare(seen):
        verdict.wrong(f"word at {address:#x}: captured {captured:#x}, expected {wanted:#x}")


def compare_responses(result: BatchResult, verdict: Verdict) -> int:
    """How many responses differ from the model's; each is told in the verdict."""
    seen = relevant(result.responses)
    before = verdict.differ
    _compare("response", seen, relevant(verdict.expected), verdict)
    return verdict.differ - before
