"""The golden TLB: which answers a log of an MMU that caches permits.

It holds no cache of its own and knows nothing of ways, sets or replacement. A translation may be used by a request when
every entry that it was made of was read by this MMU after the last event that covers it and was accepted before the
request. What an answer of a walk must be follows from what that walk read, and from nothing else. So a page fault never
rests on anything cached, and an MMU that caches nothing passes, which only counts can show (`GoldenTlb.counts`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from ptewalk.cosim.bench.events import (
    Accept,
    Answer,
    Foreign,
    Invalidate,
    LogEvent,
    Read,
    Reset,
    SetContext,
    Swap,
    WalkEnd,
)
from ptewalk.model.linux import Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import (
    GeneralProtection,
    PageFault,
    Request,
    Result,
    State,
    Translated,
    translate,
)
from ptewalk.model.x86 import LEVEL_SHIFT, Access, Control, EntryBit, Invalidation

__all__ = ["KINDS", "GoldenTlb", "judge"]

KINDS: Final = (*(kind.name for kind in Invalidation), "CONTEXT", "CONTROL", "FAULT")
"""What makes translations stale: invalidations; a context without `keep`; a change of control that flushes; a #PF."""
_PLACE: Final = {kind: place for place, kind in enumerate(KINDS)}
_SIZES: Final = (1, 2, 3)
"""Levels of a leaf."""
_FLUSHING: Final = sum(1 << bit for bit in (Control.PGE, Control.LA57, Control.NXE))
"""Control bits of which any change takes all that is cached; SMEP does as it is set."""
_SMEP: Final = 1 << Control.SMEP
_PGE: Final = 1 << Control.PGE
_G: Final = 1 << EntryBit.G
_KEPT: Final = 6
"""Translations of a page that are remembered once they are stale."""
_MOST: Final = 20


class _NotSo(Exception):
    """An access that the model does not make, or a translation that does not serve."""


@dataclass(slots=True)
class _Translation:
    """What a walk found, as a cache may keep it."""

    chain: dict[int, int]  # address to value of each entry, what the walk set included
    root: int
    page: int  # linear address >> the leaf's shift
    level: int
    pcid: int
    is_global: bool
    oldest: int  # place in the log of the oldest of the last accesses to its entries
    served: dict[tuple[object, ...], Result | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Flight:
    """A request that is not answered."""

    accepted: int
    request: Request
    context: SetContext
    number: int  # of the context
    covers: dict[tuple[bool, int], list[int]]  # (global, level) to place of the last covering event, by kind
    walks: int = 0
    result: Result | None = None
    made: _Translation | None = None


class _Walk:
    """A memory that answers as the log says a walk was answered."""

    def __init__(self, accesses: list[tuple[int, Read | Swap]], physical_bits: int) -> None:
        self.physical_bits = physical_bits
        self._accesses = accesses
        self._at = 0
        self.last: dict[int, tuple[int, int]] = {}  # address to (value, place in the log)

    def load(self, address: int) -> int:
        """As `model.paging.Memory`."""
        place, event = self._next(Read, address)
        assert isinstance(event, Read)
        if event.error:
            raise BusError(address)
        self.last[address] = event.value, place
        return event.value

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        place, event = self._next(Swap, address)
        assert isinstance(event, Swap)
        if (event.old, event.new) != (old, new):
            raise _NotSo(f"swap at {address:#x} is {event.old:#x} to {event.new:#x}, expected {old:#x} to {new:#x}")
        if event.error:
            raise BusError(address)
        if event.done:
            self.last[address] = new, place
        return event.done

    def end(self) -> None:
        """Nothing is left over."""
        if self._at < len(self._accesses):
            event = self._accesses[self._at][1]
            raise _NotSo(f"{type(event).__name__} at {event.address:#x} that the model does not make")

    def _next(self, kind: type[Read] | type[Swap], address: int) -> tuple[int, Read | Swap]:
        if self._at == len(self._accesses):
            raise _NotSo(f"no access seen, expected {kind.__name__} at {address:#x}")
        place, event = self._accesses[self._at]
        if not isinstance(event, kind) or event.address != address:
            seen = f"{type(event).__name__} at {event.address:#x}"
            raise _NotSo(f"{seen} seen, expected {kind.__name__} at {address:#x}")
        self._at += 1
        return place, event


class _Cached:
    """A memory of one translation's entries, in which nothing may have to be written."""

    def __init__(self, chain: dict[int, int], physical_bits: int) -> None:
        self.physical_bits = physical_bits
        self._chain = chain

    def load(self, address: int) -> int:
        """As `model.paging.Memory`."""
        if address not in self._chain:
            raise _NotSo(f"no entry of {address:#x}")
        return self._chain[address]

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        raise _NotSo(f"the entry at {address:#x} lacks a mark")


class GoldenTlb:
    """Judges a log, event by event.

    Parameters
    ----------
    physical_bits : int
        MAXPHYADDR.
    reset : State
        The control state after a reset.
    shadow : SparseMemory, optional
        A copy of the memory from before the log: reads are compared with it, writes are done in it.

    Attributes
    ----------
    problems : list of str
        What is not permitted, a line each; at most a few.
    wrong : int
        How many there are.
    counts : Counter of str
        answers, hits, walks, marks (entries written), overtaken (walks that ended in OK and whose translation no later
        request may use), many (OK with more than one permitted result), and for each of `KINDS`, and "OTHER_PCID", the
        answers that would have had another permitted result had that kind been ignored: *discriminating* ones.
    """

    def __init__(self, *, physical_bits: int, reset: State | None = None, shadow: SparseMemory | None = None) -> None:
        self.problems: list[str] = []
        self.wrong = 0
        self.counts: Counter[str] = Counter()
        self._bits = physical_bits
        self._reset = SetContext(reset or State(0))
        self._shadow = shadow
        self._place = 0
        self._forget()

    def _forget(self) -> None:
        self._context, self._number = self._reset, 0
        self._flights: dict[int, _Flight] = {}
        self._accesses: dict[int, list[tuple[int, Read | Swap]]] = defaultdict(list)
        self._translations: dict[tuple[int, int], list[_Translation]] = defaultdict(list)
        self._pages: dict[tuple[int, int, int, int], int] = {}  # (kind, PCID, level, page): place; PCID -1 is global
        self._pcids: dict[tuple[int, int], int] = {}  # (kind, PCID): place
        self._others: dict[tuple[int, bool], int] = {}  # (kind, global): place

    def feed(self, events: Iterable[LogEvent]) -> None:
        """Judge what comes next in the log."""
        for event in events:
            self._place += 1
            match event:
                case Read() | Swap():
                    self._accesses[event.walker].append((self._place, event))
                    self._mirror(event)
                case Foreign(address, value):
                    if self._shadow is not None:
                        self._shadow.store(address, value)
                case Accept(tag, request):
                    self._accept(tag, request)
                case WalkEnd(tag, walker):
                    self._walk_end(tag, walker)
                case Answer(tag, result):
                    self._answer(tag, result)
                case Invalidate(kind, linear, pcid):
                    self._invalidate(kind, linear, pcid)
                case SetContext():
                    self._set_context(event)
                case Reset():
                    self._forget()

    def finish(self) -> None:
        """The log is over: nothing may be left."""
        for tag in self._flights:
            self._problem(f"the request with tag {tag} was not answered")
        for walker, accesses in self._accesses.items():
            if accesses:
                self._problem(f"{len(accesses)} accesses of walker {walker} belong to no walk that ended")

    def _problem(self, text: str) -> None:
        self.wrong += 1
        if len(self.problems) < _MOST:
            self.problems.append(f"event {self._place}: {text}")

    def _mirror(self, event: Read | Swap) -> None:
        """Reads and swaps against the shadow memory."""
        shadow = self._shadow
        if shadow is None or event.error:
            return
        if isinstance(event, Read):
            wanted = shadow.load(event.address)
            if wanted != event.value:
                self._problem(f"read at {event.address:#x} gave {event.value:#x}, expected {wanted:#x}")
        elif shadow.compare_exchange(event.address, event.old, event.new) != event.done:
            self._problem(f"swap at {event.address:#x}: done is {event.done}")
        else:
            self.counts["marks"] += event.done

    # What makes translations stale -----------------------------------------------------------------------------------

    def _page_event(self, kind: str, linear: int, pcid: int) -> None:
        for level in _SIZES:
            self._pages[_PLACE[kind], pcid, level, linear >> LEVEL_SHIFT[level]] = self._place

    def _all(self, kind: str, *, spare_global: bool = False) -> None:
        self._others[_PLACE[kind], False] = self._place
        if not spare_global:
            self._others[_PLACE[kind], True] = self._place

    def _invalidate(self, kind: Invalidation, linear: int, pcid: int) -> None:
        if kind == Invalidation.INVLPG:
            self._page_event("INVLPG", linear, self._context.pcid)
            self._page_event("INVLPG", linear, -1)
        elif kind == Invalidation.ADDRESS:
            self._page_event("ADDRESS", linear, pcid)
        elif kind == Invalidation.PCID:
            self._pcids[_PLACE["PCID"], pcid] = self._place
        else:
            self._all(kind.name, spare_global=kind == Invalidation.NOT_GLOBAL)

    def _set_context(self, new: SetContext) -> None:
        if self._flights:
            self._problem("a context was taken while a request was in flight")
        old, self._context = self._context, new
        self._number += 1
        changed = old.state.control ^ new.state.control
        if changed & _FLUSHING or changed & new.state.control & _SMEP or _track(old.state) != _track(new.state):
            self._all("CONTROL")
        if not new.keep:
            self._pcids[_PLACE["CONTEXT"], new.pcid] = self._place

    def _covers(self, linear: int, pcid: int) -> dict[tuple[bool, int], list[int]]:
        """(global, level) of a translation of `linear` to the place of the last event that covers it, by kind."""
        covers = {}
        for is_global in (False, True):
            own = -1 if is_global else pcid
            for level in _SIZES:
                page = linear >> LEVEL_SHIFT[level]
                covers[is_global, level] = [
                    max(
                        self._pages.get((place, own, level, page), 0),
                        0 if is_global else self._pcids.get((place, pcid), 0),
                        self._others.get((place, is_global), 0),
                    )
                    for place in range(len(KINDS))
                ]
        return covers

    # Requests --------------------------------------------------------------------------------------------------------

    def _accept(self, tag: int, request: Request) -> None:
        if tag in self._flights:
            self._problem(f"tag {tag} was accepted while it is in flight")
        covers = self._covers(request.linear, self._context.pcid)
        self._flights[tag] = _Flight(self._place, request, self._context, self._number, covers)

    def _walk_end(self, tag: int, walker: int) -> None:
        accesses = self._accesses.pop(walker, [])
        flight = self._flights.get(tag)
        if flight is None:
            self._problem(f"a walk ended for tag {tag}, which is not in flight")
            return
        flight.walks += 1
        if accesses and accesses[0][0] < flight.accepted:
            self._problem(f"the walk for tag {tag} began before its request was accepted")
        walk = _Walk(accesses, self._bits)
        state, request = flight.context.state, flight.request
        try:
            flight.result = translate(walk, state, request)
            walk.end()
        except _NotSo as trouble:
            self._problem(f"the walk for tag {tag} ({request}): {trouble}")
            flight.result = None
            return
        if isinstance(flight.result, PageFault):
            self._page_event("FAULT", request.linear, flight.context.pcid)
            self._page_event("FAULT", request.linear, -1)
        if isinstance(flight.result, Translated) and request.access != Access.PROBE:
            flight.made = self._remember(flight, walk, flight.result.level)

    def _remember(self, flight: _Flight, walk: _Walk, level: int) -> _Translation:
        """A walk that ended in OK made a translation."""
        linear, context = flight.request.linear, flight.context
        leaf = next(reversed(walk.last.values()))[0]
        is_global = bool(leaf & _G and context.state.control & _PGE)
        made = _Translation(
            {address: value for address, (value, _) in walk.last.items()},
            context.state.root,
            linear >> LEVEL_SHIFT[level],
            level,
            context.pcid,
            is_global,
            min(place for _, place in walk.last.values()),
        )
        if max(self._covers(linear, context.pcid)[is_global, level]) > made.oldest:
            self.counts["overtaken"] += 1
        known = self._translations[level, made.page]
        known.append(made)
        if len(known) > 2 * _KEPT:
            self._thin(known)
        return made

    def _thin(self, known: list[_Translation]) -> None:
        """Let go of the oldest translations of a page that neither a later request nor one in flight may use."""
        pages = {(made.level, made.page) for made in known}
        ((level, page),) = pages
        linear = page << LEVEL_SHIFT[level]
        waiting = min((flight.accepted for flight in self._flights.values()), default=self._place)
        kept = []
        for number, made in enumerate(known):
            last = max(self._covers(linear, made.pcid)[made.is_global, level])
            if made.oldest > min(last, waiting) or number >= len(known) - _KEPT:
                kept.append(made)
        known[:] = kept

    def _answer(self, tag: int, result: Result) -> None:
        flight = self._flights.pop(tag, None)
        if flight is None:
            self._problem(f"an answer with tag {tag}, which is not in flight")
            return
        self.counts["answers"] += 1
        permitted = self._permitted(flight)
        if flight.walks:
            self.counts["walks"] += 1
            if flight.walks > 1:
                self._problem(f"tag {tag} was walked {flight.walks} times")
            if flight.result is not None and result != flight.result:
                self._problem(f"tag {tag} ({flight.request}): answered {result}, its walk says {flight.result}")
            permitted.add(result)
        elif isinstance(result, GeneralProtection) or not _canonical(flight, self._bits):
            if not isinstance(result, GeneralProtection) or _canonical(flight, self._bits):
                self._problem(f"tag {tag} ({flight.request}): answered {result}")
        else:
            self.counts["hits"] += 1
            if result not in permitted:
                said = ", ".join(map(str, permitted)) or "a walk"
                self._problem(f"tag {tag} ({flight.request}): answered {result} without a walk; permitted: {said}")
        self.counts["many"] += len(permitted) > 1

    def _permitted(self, flight: _Flight) -> set[Result]:
        """What may be answered to a request by what was read before, and no walk; counts what discriminates."""
        permitted: set[Result] = set()
        stale: list[tuple[str, Result]] = []
        linear, pcid = flight.request.linear, flight.context.pcid
        for level in _SIZES:
            for made in self._translations.get((level, linear >> LEVEL_SHIFT[level]), ()):
                if made is flight.made:
                    continue
                covering = flight.covers[made.is_global, level]
                late = [kind for kind, place in zip(KINDS, covering, strict=True) if place > made.oldest]
                if not made.is_global and made.pcid != pcid:
                    late.append("OTHER_PCID")
                if len(late) > 1:
                    continue
                served = self._serve(made, flight)
                if served is None:
                    continue
                if late:
                    stale.append((late[0], served))
                else:
                    permitted.add(served)
        fresh = permitted | ({flight.result} if flight.result is not None else set())
        for kind in {kind for kind, served in stale if served not in fresh}:
            self.counts[kind] += 1
        return permitted

    def _serve(self, made: _Translation, flight: _Flight) -> Result | None:
        """What a request is answered by a translation; None: it needs a walk."""
        request = flight.request
        key = (flight.number, request.access, request.user, request.implicit, request.ac)
        if key not in made.served:
            state = replace(flight.context.state, root=made.root)
            try:
                found = translate(_Cached(made.chain, self._bits), state, request)
            except _NotSo:
                found = None
            made.served[key] = found if isinstance(found, Translated) else None
        found = made.served[key]
        if not isinstance(found, Translated):
            return None
        offset = (1 << LEVEL_SHIFT[made.level]) - 1
        return replace(found, physical=found.physical & ~offset | request.linear & offset)


def _track(state: State) -> Track:
    return state.track if state.soft_dirty else Track.OFF


def _canonical(flight: _Flight, physical_bits: int) -> bool:
    try:
        result = translate(_Cached({}, physical_bits), replace(flight.context.state, root=0), flight.request)
    except _NotSo:
        return True
    return not isinstance(result, GeneralProtection)


def judge(events: Iterable[LogEvent], *, physical_bits: int = 40, shadow: SparseMemory | None = None) -> GoldenTlb:
    """A whole log, judged."""
    golden = GoldenTlb(physical_bits=physical_bits, shadow=shadow)
    golden.feed(events)
    golden.finish()
    return golden
