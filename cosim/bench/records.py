"""What goes into a walker and comes out of it, as numpy records: one layout for both levels of the testbench.

The structures and numbers of the compiled lane are made of these (headers.py): they stand here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptewalk.model.linux import Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import (
    BusFault,
    GeneralProtection,
    PageFault,
    Request,
    Result,
    State,
    Translated,
)
from ptewalk.model.x86 import ENTRY_BYTES, LEVELS_5, PAGE_SHIFT, PCID_BITS, Access, Control, Outcome

__all__ = [
    "CONTEXT_INPUTS",
    "EVENT",
    "FAULT",
    "INTERFERENCE",
    "REQUEST",
    "RESPONSE",
    "TRANSLATION",
    "WALKED",
    "WRITTEN",
    "Channel",
    "EventKind",
    "Records",
    "Status",
    "WordMemory",
    "array",
    "context_values",
    "decode",
    "describe_record",
    "encode_requests",
    "encode_result",
    "make",
    "merge_tags",
    "relevant",
    "result_of",
    "state_and_request",
    "validate_interferences",
    "validate_requests",
    "validate_work",
]

Records = NDArray[np.void]
"""A one-dimensional array of one of the record types below."""

CONTEXT_INPUTS: Final[tuple[tuple[str, type[np.unsignedinteger[Any]], int | None], ...]] = (
    ("root", np.uint64, None),  # frame number of the top-level table
    ("control", np.uint32, (1 << Control.AC) - 1),  # bits x86.Control, without AC
    ("pkru", np.uint32, None),
    ("pkrs", np.uint32, None),
    ("track", np.uint8, max(Track)),  # linux.Track; 0 where the design has no soft-dirty
    ("saved_dirty", np.uint8, 1),
    ("pcid", np.uint16, (1 << PCID_BITS) - 1),  # with caches
    ("keep", np.uint8, 1),
)
"""Control inputs: field of a context, type in a record, and the largest value that counts (None: what the port takes).

This is the one place that names them: `REQUEST`, the headers of the compiled lane and the agents follow it.
"""

REQUEST: Final = np.dtype(
    [
        ("linear", np.uint64),
        *((name, kind) for name, kind, _ in CONTEXT_INPUTS),
        ("tag", np.uint32),
        ("access", np.uint8),  # x86.Access
        ("user", np.uint8),
        ("implicit", np.uint8),
        ("ac", np.uint8),
    ],
    align=True,
)
"""A request with the context under which it is to be judged."""

RESPONSE: Final = np.dtype(
    [
        ("physical", np.uint64),
        ("cycles", np.uint32),  # from the request's transfer to the first cycle in which the response is valid
        ("tag", np.uint32),
        ("code", np.uint16),
        ("outcome", np.uint8),  # x86.Outcome
        ("level", np.uint8),
        ("pwt", np.uint8),
        ("pcd", np.uint8),
        ("pat", np.uint8),
    ],
    align=True,
)
"""A response. Which fields count: see `relevant`."""

INTERFERENCE: Final = np.dtype(
    [
        ("address", np.uint64),  # of a word, in bytes
        ("value", np.uint64),
        ("request", np.uint32),  # index of the request in the batch
        ("after", np.uint32),  # how many reads of that request have been answered; 0: as it is accepted
    ],
    align=True,
)
"""A write by a second writer: it falls right after the read's value was sampled, in the cycle of the read's answer.

What belongs to a request whose walk ends before is not written.
"""

EVENT: Final = np.dtype(
    [
        ("address", np.uint64),
        ("old", np.uint64),  # read: the value; swap: the value that must stand there; foreign: the value before
        ("new", np.uint64),
        ("request", np.uint32),
        ("kind", np.uint8),  # EventKind
        ("done", np.uint8),
        ("error", np.uint8),
    ],
    align=True,
)
"""One access to memory, in the order of their answers."""

FAULT: Final = np.dtype(
    [("linear", np.uint64), ("tag", np.uint32), ("code", np.uint16)],
    align=True,
)
"""A record of the fault queue, as it was taken."""

WRITTEN: Final = np.dtype(
    [
        ("linear", np.uint64),
        ("address", np.uint64),
        ("old", np.uint64),
        ("new", np.uint64),
        ("tag", np.uint32),
        ("level", np.uint8),
        ("done", np.uint8),
        ("error", np.uint8),
    ],
    align=True,
)
"""A record of the trace port for the answer to a swap."""

WALKED: Final = np.dtype(
    [
        ("linear", np.uint64),
        ("physical", np.uint64),
        ("tag", np.uint32),
        ("code", np.uint16),
        ("outcome", np.uint8),
        ("level", np.uint8),
        ("pwt", np.uint8),
        ("pcd", np.uint8),
        ("pat", np.uint8),
    ],
    align=True,
)
"""A record of the trace port for a response, as it was taken."""


TRANSLATION: Final = np.dtype(
    [
        ("frame", np.uint64),
        ("address", np.uint64),
        *(
            (name, np.uint8)
            for name in ("level", "rw", "us", "xd", "pkey", "g", "d", "soft_dirty", "pwt", "pcd", "pat")
        ),
    ],
    align=True,
)
"""What stands beside a response that is OK: `model.translation.Translation`, field by field."""


class WordMemory(Protocol):
    """What a testbench needs of a memory: words of 64 bits at byte addresses that are multiples of 8.

    Each method raises `model.memory.BusError` when no memory answers.
    """

    def load(self, address: int, /) -> int:
        """The word at `address`."""

    def store(self, address: int, value: int, /) -> None:
        """Write a word."""

    def compare_exchange(self, address: int, old: int, new: int, /) -> bool:
        """Write `new` if the word is `old`, and say whether it was written."""


class EventKind(IntEnum):
    """Who did what."""

    READ = 0
    SWAP = 1
    FOREIGN = 2
    """A write by the second writer."""


class Channel(IntEnum):
    """What a pattern of chance is drawn for, each its own."""

    REQUESTS = 0
    RESPONSES = 1
    READS = 2
    SWAPS = 3
    FAULTS = 4
    DRAINS = 5
    LATENCY = 6
    ERRORS = 7
    RETIREMENT = 8


class Status(IntEnum):
    """How a run of requests ended."""

    COMPLETE = 0
    TIMEOUT = 1
    STRAY_RESPONSE = 2
    STRAY_MEMORY = 3
    TWO_IN_FLIGHT = 4
    TWO_OUTSTANDING = 5
    UNSTABLE_RESPONSE = 6
    UNSTABLE_READ = 7
    UNSTABLE_SWAP = 8
    UNSTABLE_FAULT = 9
    STRAY_FAULT = 10
    MISSING_FAULT = 11
    NOT_DRAINED = 12
    DRAINED_EARLY = 13
    CONTEXT_IN_FLIGHT = 14
    CONTEXT_OVERTAKEN = 15


_LIMITS: Final = {name: limit for name, _, limit in CONTEXT_INPUTS if limit is not None} | {
    "access": max(Access),
    "user": 1,
    "implicit": 1,
    "ac": 1,
}
_COUNTS_WHEN_OK: Final = ("physical", "level", "pwt", "pcd", "pat")


def array(rows: object, dtype: DTypeLike, what: str) -> Records:
    """`rows` as a contiguous one-dimensional array of `dtype`; TypeError or ValueError, naming `what`, if not."""
    if not isinstance(rows, np.ndarray) or rows.dtype != np.dtype(dtype):
        found = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
        raise TypeError(f"{what} must be a numpy array of the record type in cosim/bench/records.py, not of {found}")
    if rows.ndim != 1:
        raise ValueError(f"{what} must have one dimension, not shape {rows.shape}")
    return np.ascontiguousarray(rows)


def make(dtype: np.dtype[np.void], values: Mapping[str, int]) -> np.void:
    """One record of `dtype`; fields without a value are 0."""
    record: np.void = np.zeros(1, dtype)[0]
    for name, value in values.items():
        record[name] = value
    return record


def validate_requests(requests: object, *, physical_bits: int, tag_bits: int, soft_dirty: bool) -> Records:
    """`requests`, when each fits a walker with these parameters.

    Raises
    ------
    TypeError, ValueError
        Names the field, the first record that breaks the rule, and its value.
    """
    checked = array(requests, REQUEST, "requests")
    limits = _LIMITS | {"root": (1 << physical_bits - PAGE_SHIFT) - 1, "tag": (1 << tag_bits) - 1}
    if not soft_dirty:
        limits |= {"track": 0, "saved_dirty": 0}
    for field, limit in limits.items():
        bad = np.flatnonzero(checked[field] > limit)
        if len(bad):
            raise ValueError(
                f"requests: {field} must be at most {limit:#x}, not {int(checked[field][bad[0]]):#x} (record {bad[0]})"
            )
    return checked


def validate_interferences(interferences: object, *, requests: int, memory: WordMemory) -> Records:
    """`interferences` sorted by (request, after), when each belongs to a request and hits a word of memory.

    Raises
    ------
    TypeError, ValueError
        Names the first record that breaks a rule, and its value.
    """
    rows = array(interferences, INTERFERENCE, "interferences")
    rows = np.ascontiguousarray(rows[np.lexsort((rows["after"], rows["request"]))])
    bad = np.flatnonzero(rows["request"] >= requests)
    if len(bad):
        raise ValueError(
            f"interferences: request must be below {requests}, the number of requests, "
            f"not {rows['request'][bad[0]]} (record {bad[0]})"
        )
    known = np.zeros(len(rows), bool)
    if isinstance(memory, SparseMemory):
        known = memory.load_many(rows["address"])[1] & (rows["address"] % np.uint64(ENTRY_BYTES) == 0)
    for number in np.flatnonzero(~known).tolist():
        address = int(rows["address"][number])
        try:
            memory.load(address)
        except (BusError, ValueError) as error:
            raise ValueError(f"interferences: record {number}: {error}") from error
    return rows


def validate_work(
    requests: object, interferences: Records | None, memory: WordMemory, parameters: Mapping[str, Any]
) -> tuple[Records, Records]:
    """As `validate_requests` and `validate_interferences`, for a design with these parameters."""
    checked = validate_requests(
        requests,
        physical_bits=parameters["physical_bits"],
        tag_bits=parameters["tag_bits"],
        soft_dirty=parameters["soft_dirty"],
    )
    if interferences is None or (isinstance(interferences, np.ndarray) and not len(interferences)):
        return checked, np.zeros(0, INTERFERENCE)
    return checked, validate_interferences(interferences, requests=len(checked), memory=memory)


def context_values(state: State, pcid: int = 0, *, keep: bool = False) -> dict[str, int]:
    """A value for each of `CONTEXT_INPUTS`; 0 for one that the golden model does not know.

    A state without soft-dirty gives track and saved_dirty 0.
    """
    known = {
        "root": state.root >> PAGE_SHIFT,
        "control": state.control,
        "pkru": state.pkru,
        "pkrs": state.pkrs,
        "track": int(state.track) if state.soft_dirty else 0,
        "saved_dirty": int(state.saved_dirty and state.soft_dirty),
        "pcid": pcid,
        "keep": int(keep),
    }
    return {name: known.get(name, 0) for name, _, _ in CONTEXT_INPUTS}


def encode_requests(pairs: Iterable[tuple[State, Request]], tags: Sequence[int] | None = None) -> Records:
    """The `REQUEST` records of (state, request) pairs; `tags` default to the position, modulo 256."""
    rows = []
    for number, (state, request) in enumerate(pairs):
        rows.append(
            (
                request.linear,
                *context_values(state).values(),
                number % 256 if tags is None else tags[number],
                int(request.access),
                request.user,
                request.implicit,
                request.ac,
            )
        )
    return np.array(rows, REQUEST)


def state_and_request(
    row: np.void, *, soft_dirty: bool = True, levels: int = LEVELS_5, gigabyte_pages: bool = True
) -> tuple[State, Request]:
    """What `encode_requests` was given for one record, as a design with these parameters takes it."""
    control = int(row["control"])
    state = State(
        root=int(row["root"]) << PAGE_SHIFT,
        control=control if levels == LEVELS_5 else control & ~(1 << Control.LA57),
        pkru=int(row["pkru"]),
        pkrs=int(row["pkrs"]),
        track=Track(int(row["track"])),
        saved_dirty=bool(row["saved_dirty"]),
        soft_dirty=soft_dirty,
        gigabyte_pages=gigabyte_pages,
    )
    request = Request(
        linear=int(row["linear"]),
        access=Access(int(row["access"])),
        user=bool(row["user"]),
        implicit=bool(row["implicit"]),
        ac=bool(row["ac"]),
    )
    return state, request


def decode(row: np.void) -> Result:
    """The model's result that a `RESPONSE` record stands for."""
    return result_of(*(int(row[name]) for name in ("outcome", *_COUNTS_WHEN_OK, "code")))


def result_of(outcome: int, physical: int, level: int, pwt: int, pcd: int, pat: int, code: int) -> Result:
    """The model's result of the fields of a `RESPONSE` record."""
    if outcome == Outcome.OK:
        return Translated(physical, level, bool(pwt), bool(pcd), bool(pat))
    if outcome == Outcome.PAGE_FAULT:
        return PageFault(code)
    return GeneralProtection() if Outcome(outcome) is Outcome.GENERAL_PROTECTION else BusFault()


def encode_result(results: Iterable[Result]) -> Records:
    """The `RESPONSE` records of the model's results; fields that do not count, tag and cycles are 0."""
    rows: list[tuple[int, ...]] = []
    for result in results:
        match result:
            case Translated(physical, level, pwt, pcd, pat):
                rows.append((physical, 0, 0, 0, int(Outcome.OK), level, pwt, pcd, pat))
            case PageFault(code):
                rows.append((0, 0, 0, code, int(Outcome.PAGE_FAULT), 0, 0, 0, 0))
            case GeneralProtection():
                rows.append((0, 0, 0, 0, int(Outcome.GENERAL_PROTECTION), 0, 0, 0, 0))
            case BusFault():
                rows.append((0, 0, 0, 0, int(Outcome.BUS_ERROR), 0, 0, 0, 0))
    return np.array(rows, RESPONSE)


def merge_tags(expected: Records, requests: Records) -> Records:
    """A copy of the `RESPONSE` records `expected` that carries the tags of as many `requests`."""
    merged = expected.copy()
    merged["tag"] = requests["tag"][: len(expected)]
    return merged


def relevant(responses: Records) -> Records:
    """A copy with zeros in what does not count: cycles always; physical, level and memory type unless OK.

    The error code is kept whatever the outcome: it must be 0 unless it is a page fault.
    """
    kept = responses.copy()
    kept["cycles"] = 0
    failed = kept["outcome"] != Outcome.OK
    for field in _COUNTS_WHEN_OK:
        kept[field][failed] = 0
    return kept


def describe_record(row: np.void) -> dict[str, Any]:
    """Field name to a readable value of one record: names for outcomes, accesses and kinds, addresses in hex."""
    shown: dict[str, Any] = {}
    for field in row.dtype.names or ():
        value = row[field]
        if field == "outcome":
            shown[field] = Outcome(int(value)).name
        elif field == "access":
            shown[field] = Access(int(value)).name if value <= max(Access) else int(value)
        elif field == "kind":
            shown[field] = EventKind(int(value)).name
        elif field in (
            "cycles",
            "tag",
            "level",
            "user",
            "implicit",
            "ac",
            "pwt",
            "pcd",
            "pat",
            "request",
            "after",
            "pkey",
        ):
            shown[field] = int(value)
        else:
            shown[field] = f"{int(value):#x}"
    return shown
