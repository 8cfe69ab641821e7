"""The golden TLB: which answers a log of an MMU that caches permits.

It holds no cache of its own and knows nothing of ways, sets or replacement. A translation may be used by a request when
every entry that it was made of was read by this MMU after the last event that covers it and was accepted before the
request. A walk may begin below the root, at upper entries that were read so; one that then ends in a page fault begins
again at the root. What an answer of a walk must be follows from what that walk read, and from where it began. So a page
fault never rests on anything cached, and an MMU that caches nothing passes, which only counts can show
(`GoldenTlb.counts`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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
from ptewalk.cosim.checks.logged_walks import (
    CachedEntries,
    CachedTranslation,
    LoggedWalk,
    NotSo,
    Start,
    entry_offset,
    table_of,
)
from ptewalk.cosim.checks.staleness import KINDS, SIZES, Cover, Staleness
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import (
    GeneralProtection,
    PageFault,
    Request,
    Result,
    State,
    Translated,
    translate,
)
from ptewalk.model.x86 import (
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    LINEAR_BITS,
    Access,
    Control,
    EntryBit,
)

__all__ = ["GoldenTlb", "judge"]

_LA57: Final = 1 << Control.LA57
_FLUSHING: Final = 1 << Control.PGE | 1 << Control.NXE
"""Control bits of which any change takes all that is cached, as of LA57; SMEP does as it is set."""
_SMEP: Final = 1 << Control.SMEP
_PGE: Final = 1 << Control.PGE
_G: Final = 1 << EntryBit.G
_PASSES: Final = 1 << EntryBit.P | 1 << EntryBit.A
"""What an upper entry must have to be cached."""
_PS: Final = 1 << EntryBit.PS
_VALUES: Final = 8
"""Values of an entry that are remembered."""
_KEPT: Final = 4
"""Translations of a page that are remembered once they are stale."""
_MOST: Final = 20


@dataclass(slots=True)
class _Flight:
    """A request that is not answered."""

    accepted: int
    request: Request
    context: SetContext
    key: int  # of what the context says, but for its root
    covers: list[Cover]  # what covers a translation that is not global, by level, then one that is
    above: dict[int, int]  # level to place of the last event that covers an upper entry of it
    walks: int = 0
    results: set[Result] | None = None  # None: the walk was no walk
    made: list[CachedTranslation] = field(default_factory=list)  # by its own walk, and by no walk before


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
        answers, hits, walks, partial (walks that began below the root), restarts (of them, that began again), marks
        (entries written), overtaken (walks that ended in OK and whose translation no later
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
        self._keys: dict[State, int] = {}
        self._forget()

    def _forget(self) -> None:
        self._context, self._key = self._reset, self._key_of(self._reset)
        self._flights: dict[int, _Flight] = {}
        self._accesses: dict[int, list[tuple[int, Read | Swap]]] = defaultdict(list)
        self._translations: dict[tuple[int, int], list[CachedTranslation]] = defaultdict(list)
        self._stale = Staleness()
        self._seen: dict[int, dict[int, int]] = defaultdict(dict)  # address to value to place
        self._roots: dict[int, dict[int, int]] = defaultdict(dict)  # PCID to root to the place of its end

    def feed(self, events: Iterable[LogEvent]) -> None:
        """Judge what comes next in the log."""
        for event in events:
            self._place += 1
            match event:
                case Read() | Swap():
                    self._accesses[event.walker].append((self._place, event))
                    self._see(event)
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
                case Invalidate(kind, linear, pcid, _):
                    self._stale.invalidate(kind, linear, pcid, self._context.pcid, self._place)
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

    def _see(self, event: Read | Swap) -> None:
        """An entry was read, or is what an own swap made of it."""
        if event.error or (isinstance(event, Swap) and not event.done):
            return
        values = self._seen[event.address]
        value = event.value if isinstance(event, Read) else event.new
        values.pop(value, None)
        values[value] = self._place
        if len(values) > _VALUES:
            del values[next(iter(values))]

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

    def _set_context(self, new: SetContext) -> None:
        if self._flights:
            self._problem("a context was taken while a request was in flight")
        old, self._context = self._context, new
        self._roots[old.pcid][table_of(old.state.root)] = self._place
        self._key = self._key_of(new)
        changed = old.state.control ^ new.state.control
        if changed & _FLUSHING or changed & new.state.control & _SMEP or _track(old.state) != _track(new.state):
            self._stale.all("CONTROL", self._place)
        if changed & _LA57:
            self._stale.all("LA57", self._place)
        if not new.keep:
            self._stale.of_pcid("CONTEXT", new.pcid, self._place)

    def _key_of(self, context: SetContext) -> int:
        """A number for all contexts that judge a cached translation alike."""
        return self._keys.setdefault(replace(context.state, root=0), len(self._keys))

    # Requests --------------------------------------------------------------------------------------------------------

    def _accept(self, tag: int, request: Request) -> None:
        if tag in self._flights:
            self._problem(f"tag {tag} was accepted while it is in flight")
        covers, above = self._stale.at(request.linear, self._context.pcid)
        self._flights[tag] = _Flight(self._place, request, self._context, self._key, covers, above)

    def _walk_end(self, tag: int, walker: int) -> None:
        accesses = self._accesses.pop(walker, [])
        flight = self._flights.get(tag)
        if flight is None:
            self._problem(f"a walk ended for tag {tag}, which is not in flight")
            return
        flight.walks += 1
        if accesses and accesses[0][0] < flight.accepted:
            self._problem(f"the walk for tag {tag} began before its request was accepted")
        ends, trouble = self._replay(flight, accesses)
        if not ends:
            self._problem(f"the walk for tag {tag} ({flight.request}): {trouble}")
            return
        flight.results = {result for _, _, result in ends}
        request = flight.request
        for start, walk, result in ends:
            if isinstance(result, PageFault):
                self._stale.page_and_global("FAULT", request.linear, flight.context.pcid, self._place)
            if isinstance(result, Translated) and request.access != Access.PROBE:
                self._remember(flight, walk, start.root, result.level)

    def _replay(
        self, flight: _Flight, accesses: list[tuple[int, Read | Swap]]
    ) -> tuple[list[tuple[Start, LoggedWalk, Result]], str]:
        """Each way in which the model makes these accesses: where it began, and its result; or why it does not."""
        state, request, trouble = flight.context.state, flight.request, ""
        ends: list[tuple[Start, LoggedWalk, Result]] = []
        for start in self._starts(flight, accesses):
            walk = LoggedWalk(accesses, self._bits, start)
            again = False
            try:
                result = translate(walk, _at_root(state, start.root), request)
                if start.above and isinstance(result, PageFault):
                    again = True
                    walk.restart()
                    result = translate(walk, state, request)
                walk.end()
            except NotSo as reason:
                trouble = trouble or str(reason)
                continue
            if not ends:
                self.counts["partial"] += bool(start.above)
                self.counts["restarts"] += again
            ends.append((Start(state.root) if again else start, walk, result))
            if not start.above:
                break
        return ends, trouble

    def _starts(self, flight: _Flight, accesses: list[tuple[int, Read | Swap]]) -> Iterator[Start]:
        """Where the walk may have begun that made these accesses: at the root, or below upper entries read before."""
        state = flight.context.state
        yield Start(state.root)
        if not accesses:
            return
        top = LEVELS_5 if state.control & _LA57 else LEVELS_4
        ended = self._roots.get(flight.context.pcid, {})
        roots = {root for root, place in ended.items() if place > flight.above[top]} | {table_of(state.root)}
        first = accesses[0][1].address
        for root in roots:
            below: list[tuple[int, int, tuple[tuple[int, int, int], ...]]] = [(root, top, ())]
            while below:
                table, level, above = below.pop()
                address = table + entry_offset(flight.request.linear, level)
                if above and address == first:
                    yield Start(root, above)
                if level == 1:
                    continue
                for value, place in self._seen.get(address, {}).items():
                    if place > flight.above[level] and value & _PASSES == _PASSES and not value & _PS:
                        found = (*above, (address, value, place))
                        below.append((table_of(value) & (1 << self._bits) - 1, level - 1, found))

    def _remember(self, flight: _Flight, walk: LoggedWalk, root: int, level: int) -> None:
        """A walk that ended in OK made a translation."""
        linear, context = flight.request.linear, flight.context
        leaf = next(reversed(walk.last.values()))[0]
        is_global = bool(leaf & _G and context.state.control & _PGE)
        places = [place for _, place in walk.last.values()]
        oldest, newest = min(places), max(places)
        made = CachedTranslation(
            {address: value for address, (value, _) in walk.last.items()},
            root,
            context.state.control & _LA57,
            linear >> LEVEL_SHIFT[level],
            level,
            context.pcid,
            is_global,
            oldest,
            self._stale.torn(context.pcid, oldest, newest),
        )
        if made.torn or self._stale.cover(linear, context.pcid, is_global, level).last > made.oldest:
            self.counts["overtaken"] += 1
        known = self._translations[level, made.page]
        known_before = self._replace(known, made)
        if known_before is None or known_before.oldest < flight.covers[len(SIZES) * is_global + level - 1].last:
            flight.made.append(made)
        known.append(made)
        if len(known) > _KEPT + 2:
            self._thin(known)

    @staticmethod
    def _replace(known: list[CachedTranslation], made: CachedTranslation) -> CachedTranslation | None:
        """What was made of the same entries, read before, may serve nothing that `made` does not: it is let go of.

        Of several walkers one may end later that read earlier: it replaces nothing.
        """
        for place, one in enumerate(known):
            same = one.chain == made.chain and one.root == made.root and one.pcid == made.pcid
            if same and one.is_global == made.is_global and not made.torn and one.oldest <= made.oldest:
                made.served = one.served
                return known.pop(place)
        return None

    def _thin(self, known: list[CachedTranslation]) -> None:
        """Let go of the oldest translations of a page that neither a later request nor one in flight may use."""
        level, linear = known[0].level, known[0].page << LEVEL_SHIFT[known[0].level]
        flying = [
            flight for flight in self._flights.values() if flight.request.linear >> LEVEL_SHIFT[level] == known[0].page
        ]
        kept = []
        for number, made in enumerate(known):
            at = len(SIZES) * made.is_global + level - 1
            lasts = [flight.covers[at].last for flight in flying]
            lasts.append(self._stale.cover(linear, made.pcid, made.is_global, level).last)
            if made.oldest > min(lasts) or number >= len(known) - _KEPT:
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
            if flight.results is not None and result not in flight.results:
                said = " or ".join(map(str, flight.results))
                self._problem(f"tag {tag} ({flight.request}): answered {result}, its walk says {said}")
            permitted.add(result)
        elif isinstance(result, GeneralProtection) or not _canonical(flight):
            if not isinstance(result, GeneralProtection) or _canonical(flight):
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
        if not _canonical(flight):
            return permitted
        linear, pcid, own = flight.request.linear, flight.context.pcid, flight.made
        for level in SIZES:
            for made in self._translations.get((level, linear >> LEVEL_SHIFT[level]), ()):
                cover = flight.covers[len(SIZES) * made.is_global + level - 1]
                if cover.before > made.oldest or any(made is one for one in own):
                    continue
                late = []
                if cover.last > made.oldest:
                    late = [kind for kind, place in zip(KINDS, cover.by_kind, strict=True) if place > made.oldest]
                if not made.is_global and made.pcid != pcid:
                    late.append("OTHER_PCID")
                if made.torn and made.torn < flight.accepted and "INVLPG" not in late:
                    late.append("INVLPG")
                if len(late) > 1:
                    continue
                served = self._serve(made, flight)
                if served is None:
                    continue
                if late:
                    stale.append((late[0], served))
                else:
                    permitted.add(served)
        fresh = permitted | (flight.results or set())
        for kind in {kind for kind, served in stale if served not in fresh}:
            self.counts[kind] += 1
        return permitted

    def _serve(self, made: CachedTranslation, flight: _Flight) -> Result | None:
        """What a request is answered by a translation; None: it needs a walk."""
        request = flight.request
        key = (flight.key, request.access, request.user, request.implicit, request.ac)
        if key not in made.served:
            try:
                found = translate(CachedEntries(made.chain, self._bits), _as_made(flight.context.state, made), request)
            except NotSo:
                found = None
            made.served[key] = found if isinstance(found, Translated) else None
        found = made.served[key]
        if not isinstance(found, Translated):
            return None
        offset = (1 << LEVEL_SHIFT[made.level]) - 1
        physical = found.physical & ~offset | request.linear & offset
        return Translated(physical, found.level, found.pwt, found.pcd, found.pat)


def _track(state: State) -> Track:
    return state.track if state.soft_dirty else Track.OFF


def _at_root(state: State, root: int) -> State:
    return state if state.root == root else replace(state, root=root)


def _as_made(state: State, made: CachedTranslation) -> State:
    """What a translation is judged by: the state of now, over the tables that it was made of."""
    state = _at_root(state, made.root)
    return state if state.control & _LA57 == made.la57 else replace(state, control=state.control ^ _LA57)


def _canonical(flight: _Flight) -> bool:
    """Whether all bits above those that are translated equal the highest of them."""
    bits = LINEAR_BITS[LEVELS_5 if flight.context.state.control & _LA57 else LEVELS_4]
    return flight.request.linear >> bits - 1 in (0, (1 << 65 - bits) - 1)


def judge(events: Iterable[LogEvent], *, physical_bits: int = 40, shadow: SparseMemory | None = None) -> GoldenTlb:
    """A whole log, judged."""
    golden = GoldenTlb(physical_bits=physical_bits, shadow=shadow)
    golden.feed(events)
    golden.finish()
    return golden
