"""An MMU that caches as the operating system's MMU."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ptewalk.cosim.bench.caching_lane import CachingRun
from ptewalk.cosim.bench.caching_session import CALM, CachingSession, quiet_conditions
from ptewalk.cosim.bench.events import Answer, Invalidate, SetContext
from ptewalk.model.engine import Engine
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State, translate
from ptewalk.model.x86 import PAGE_BYTES, Access, Invalidation

__all__ = ["CachedMmu", "LatelyAsked", "ways_to_forget"]

_AGAIN: Final = (Access.READ, Access.WRITE, Access.READ)
_EVERYTHING: Final = (Invalidate(Invalidation.NOT_GLOBAL), Invalidate(Invalidation.ALL))


class LatelyAsked:
    """The pages accessed last, which are asked about again: what is cached by now must be what memory says.

    Parameters
    ----------
    memory : SparseMemory
    answers : callable (State, sequence of Request)
        Asks the gateware each of them, and gives the results.
    recent : int
        Pages that are kept.
    """

    def __init__(
        self, memory: SparseMemory, answers: Callable[[State, Sequence[Request]], list[Result]], recent: int = 8
    ) -> None:
        self._memory, self._answers = memory, answers
        self._recent: deque[int] = deque(maxlen=recent)

    def note(self, requests: Sequence[Request]) -> None:
        """These are asked now."""
        for request in requests:
            page = request.linear & -PAGE_BYTES
            if page in self._recent:
                self._recent.remove(page)
            self._recent.append(page)

    def ask_again(self, states: Sequence[State]) -> list[str]:
        """Ask about them in every address space.

        Nothing is asked of which a walk would write to memory. So this changes nothing but the caches, which are warm
        for what comes next.

        Parameters
        ----------
        states : sequence of State
            Of the processes that live.

        Returns
        -------
        list of str
            What differs from a walk by the golden model.
        """
        found = []
        for state in states:
            # The page fault of a store takes what is cached of its page, so each is read again at last.
            asked = [Request(page, access) for page in self._recent for access in _AGAIN]
            due = {request: _read_only(self._memory, state, request) for request in asked}
            asked = [request for request in asked if due[request] is not None]
            for request, seen in zip(asked, self._answers(state, asked), strict=True):
                if seen != due[request]:
                    found.append(f"asked again, PCID {state.pcid}, {request}: expected {due[request]}, seen {seen}")
        return found


class CachedMmu:
    """An `Mmu` that keeps translations of every address space until it is told to forget them.

    Whoever runs is switched to with `keep` (bit 63 of CR3): a switch forgets nothing.

    Parameters
    ----------
    session : CachingSession
    memory : SparseMemory
        The tables, which software and gateware share.
    seed : int, optional
        Latencies, stalls and drains are drawn anew for each call; without it memory answers at once.
    watch : callable (CachingRun), optional
        Told what each call gave.
    tags : int
        How many tags the design has.
    engine : Engine, optional
        What is beside it.

    Attributes
    ----------
    lately : LatelyAsked
    """

    def __init__(
        self,
        session: CachingSession,
        memory: SparseMemory,
        *,
        seed: int | None = None,
        watch: Callable[[CachingRun], None] = lambda run: None,
        tags: int = 256,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine
        self.lately = LatelyAsked(memory, partial(self._answers, stop_on_fault=False))
        self._session, self._memory, self._watch, self._tags = session, memory, watch, tags
        self._rng = None if seed is None else random.Random(f"conditions {seed}")
        self._state: State | None = None
        self._before: list[SetContext | Invalidate] = []

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        self.lately.note(requests)
        return self._answers(state, requests, stop_on_fault=True)

    def _answers(self, state: State, requests: Sequence[Request], *, stop_on_fault: bool) -> list[Result]:
        if not requests:
            return []
        before, self._before = self._before, []
        if state != self._state:
            before.append(SetContext(state, state.pcid, keep=True))
            self._state = state
        conditions, seed = CALM, 0
        if self._rng is not None:
            conditions, seed = quiet_conditions(self._rng, self._tags), self._rng.getrandbits(64)
        run = self._session.ask(
            self._memory, before, requests, conditions=conditions, seed=seed, stop_on_fault=stop_on_fault
        )
        self._watch(run)
        return [event.result for event in run.read() if isinstance(event, Answer)]

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`, in force for the next `run`; with a seed in any way that takes this much or more."""
        if self._state is None:
            return  # nothing was asked yet
        ways = ways_to_forget(linear, pcid, self._state.pcid)
        self._before.append(ways[0] if self._rng is None else self._rng.choice(ways))


def ways_to_forget(linear: int | None, pcid: int, running: int) -> list[Invalidate]:
    """What takes as much as `Mmu.invalidate` asks for, or more, with the PCID that runs; the least first."""
    if linear is None:
        return [Invalidate(Invalidation.PCID, 0, pcid), *_EVERYTHING]
    ways = [Invalidate(Invalidation.ADDRESS, linear, pcid)]
    return [Invalidate(Invalidation.INVLPG, linear), *ways] if pcid == running else ways


class _Writes(Exception):
    """A walk would write to memory."""


class _Untouched:
    """A memory that is only read."""

    def __init__(self, memory: SparseMemory) -> None:
        self.physical_bits = memory.physical_bits
        self.load = memory.load

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        raise _Writes


def _read_only(memory: SparseMemory, state: State, request: Request) -> Result | None:
    """What a walk gives; None when it would write to memory."""
    try:
        return translate(_Untouched(memory), state, request)
    except _Writes:
        return None
