"""What a testbench saw of an MMU that caches, in one order: a log that a golden TLB judges.

Events are in the order of their cycles. Within a cycle: what memory answers and what a second writer writes, then the
request or the context that is accepted, then the invalidation, then the walk that ends, then the answer that is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptewalk.model.paging import Request, Result, State
from ptewalk.model.x86 import Invalidation, Wait

__all__ = ["Accept", "Answer", "Foreign", "Invalidate", "LogEvent", "Read", "Reset", "SetContext", "Swap", "WalkEnd"]


@dataclass(frozen=True, slots=True)
class SetContext:
    """A context was taken.

    Attributes
    ----------
    state : State
    pcid : int
    keep : bool
        False: what is cached of `pcid`, but for global pages, is forgotten (a write to CR3 without bit 63).
    """

    state: State
    pcid: int = 0
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Accept:
    """A request was accepted; `tag` is in flight until its answer."""

    tag: int
    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Memory answered a read of `walker`: `value` stood at `address`, unless `error`."""

    address: int
    value: int
    error: bool = False
    walker: int = 0


@dataclass(frozen=True, slots=True)
class Swap:
    """Memory answered a conditional write of `walker`."""

    address: int
    old: int
    new: int
    done: bool = True
    error: bool = False
    walker: int = 0


@dataclass(frozen=True, slots=True)
class Foreign:
    """A second writer wrote `value` at `address`."""

    address: int
    value: int


@dataclass(frozen=True, slots=True)
class Invalidate:
    """An invalidation was accepted; `linear` counts for one address, `pcid` for INVPCID's types 0 and 1.

    What it waits for changes nothing in what is permitted after it; `bench.waits` watches that.
    """

    kind: Invalidation
    linear: int = 0
    pcid: int = 0
    wait: Wait = Wait.NONE


@dataclass(frozen=True, slots=True)
class WalkEnd:
    """A walk for the request `tag` has ended: the accesses of `walker` since its last one are that walk's.

    The trace port says so. It cannot excuse an answer: the walk is made again by the model, access by access.
    """

    tag: int
    walker: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request `tag` was taken."""

    tag: int
    result: Result


@dataclass(frozen=True, slots=True)
class Reset:
    """The design was reset: nothing is cached, nothing in flight, and every field of the context is 0."""


LogEvent = SetContext | Accept | Read | Swap | Foreign | Invalidate | WalkEnd | Answer | Reset
