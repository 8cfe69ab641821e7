"""A bench of the MMU that caches which does what a test says, cycle by cycle; its log is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from ptewalk.cosim.bench.caching import CachingBench, CachingConditions, Get, Set
from ptewalk.cosim.bench.events import Accept, Answer, Foreign, SetContext, WalkEnd
from ptewalk.cosim.bench.records import context_values
from ptewalk.cosim.checks.caching import judge_run
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State, Translated
from ptewalk.model.x86 import Access, Control, Invalidation, Wait
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe
from ptewalk.rtl.walker import WalkerConfig

from .test_caching_mmu import simulate

P, RW, US, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
SD, ARM = 1 << SoftBit.SOFT_DIRTY, 1 << SoftBit.ARM
UPPER = P | RW | US | A
ROOT, PDPT, PD, PT, PT_2 = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
LINEAR = 0x0000_1234_5678_9000
NEIGHBOUR, THIRD, FAR = LINEAR + 0x1000, LINEAR + 0x2000, LINEAR + (1 << 40)
OLD, NEW = 0x71_0000, 0x72_0000
"""Frames."""
AT = {4: ROOT + (LINEAR >> 39 & 511) * 8, 3: PDPT + (LINEAR >> 30 & 511) * 8, 2: PD + (LINEAR >> 21 & 511) * 8}
SMALL = CachingMmuConfig(WalkerConfig(tag_bits=4))
UPPERS = replace(SMALL, upper_entries=2)
WP, NXE, SMEP, PGE = (1 << bit for bit in (Control.WP, Control.NXE, Control.SMEP, Control.PGE))


def leaf_at(linear: int, table: int = PT) -> int:
    return table + (linear >> 12 & 511) * 8


class Tables:
    """Memory, and nothing that is drawn: a test says what happens."""

    def __init__(self, memory: SparseMemory | None = None) -> None:
        self.memory = memory or SparseMemory()
        for level, table in ((4, PDPT), (3, PD), (2, PT)):
            self.memory.store(AT[level], table | UPPER)
        for linear in (LINEAR, NEIGHBOUR, THIRD):
            self.memory.store(leaf_at(linear), OLD | linear - LINEAR & 0xF000 | UPPER | D)

    def request(self) -> Request:
        raise AssertionError("no request was asked for")

    def context(self) -> tuple[State, int, bool]:
        raise AssertionError("no context was asked for")

    def change(self) -> tuple[int, int]:
        raise AssertionError("no change was asked for")

    def invalidation(self, flying: object, *, changes: bool = False) -> tuple[Invalidation, int, int]:
        raise AssertionError("no invalidation was asked for")


Steps = Iterator[None]


class Directed(CachingBench):
    """A bench that does what a test says in the cycle in which it is said; each `yield` is a cycle."""

    LONGEST = 20_000
    """Cycles of a test at most."""

    def __init__(
        self, config: CachingMmuConfig, tables: Tables, script: Callable[[Directed], Steps], latency: int
    ) -> None:
        conditions = CachingConditions(stalls=0, latency=latency, latency_spread=0, retirement=0)
        super().__init__(describe(config), tables, 0, seed="directed", conditions=conditions)
        self._script = script(self)
        self._over = False
        self.takes_faults = True
        self.status = False  # a bit of it was raised
        self.held: set[int] = set()  # tags whose grants do not retire
        self.complete: list[int] = []  # the cycles in which invalidations that wait were
        self.counts: Counter[str] = Counter()

    @property
    def done(self) -> bool:
        return self._over and super().done

    def drive(self, put: Set) -> None:
        assert self._cycle < self.LONGEST, "the test does not come to its end"
        self._answer_memory(put)
        if not self._over:
            self._over = next(self._script, self) is self
        for role in ("contexts", "invalidations", "requests"):
            self._show(put, role)
        for tag in self.held & self._granted.keys():
            self._granted[tag] = self._cycle + 1
        self._retire(put)
        put(self._pin("drain"), 0)
        for role in ("responses", "reads", "swaps", "faults"):
            stream = self._design.stream(role)
            assert stream is not None and stream.ready is not None
            put(stream.ready, role != "faults" or self.takes_faults)

    def sample(self, get: Get) -> None:
        known = self._completed()
        super().sample(get)
        raised = ("fault_overflow", "tag_reused", "stray_retirement")
        self.status |= any(get(self._design.plain[f"supervisor.status.{name}"]) for name in raised)
        if self._completed() > known:
            self.complete.append(self._cycle - 1)

    def _completed(self) -> int:
        counts = self.waits.counts
        return counts["completed stores"] + counts["completed all"]

    # What a test says -------------------------------------------------------------------------------------------------

    def write(self, address: int, value: int) -> None:
        """Software writes, now."""
        self._story.memory.store(address, value)
        self._note(Foreign(address, value))

    def latency(self, cycles: int) -> None:
        """Of accesses to memory that are made from now on."""
        self._conditions = replace(self._conditions, latency=cycles)

    def ask(self, linear: int = LINEAR, access: Access = Access.READ, *, user: bool = True) -> Iterator[None]:
        """A request, on offer as soon as the one before is taken and a tag is free."""
        used = {*self._flying, *self._granted}
        while "requests" in self._offered or len(used) >= 16:
            yield
            used = {*self._flying, *self._granted}
        tag = next(tag for tag in range(16) if tag not in used)
        fields = {"linear": linear, "access": int(access), "user": user, "implicit": 0, "ac": 0, "tag": tag}
        self._offer("requests", fields, Accept(tag, Request(linear, access, user)))

    def invalidate(
        self,
        kind: Invalidation = Invalidation.INVLPG,
        linear: int = LINEAR,
        pcid: int = 1,
        wait: Wait = Wait.NONE,
    ) -> Steps:
        while "invalidations" in self._offered:
            yield
        self._offer_invalidation(kind, linear, pcid, wait)

    def context(
        self, control: int = 0, pcid: int = 1, *, keep: bool = True, root: int = ROOT, track: Track = Track.OFF
    ) -> Steps:
        while "contexts" in self._offered:
            yield
        state = State(root, control, track=track)
        self._offer("contexts", context_values(state, pcid, keep=keep), SetContext(state, pcid, keep))

    def flying(self) -> bool:
        """A request is in flight."""
        return bool(self._flying)

    def granted(self) -> set[int]:
        """Tags whose grants have not retired."""
        return {*self._granted}

    def offers(self, role: str) -> bool:
        """Something waits there to be taken."""
        return role in self._offered

    def load(self, address: int) -> int:
        """What stands in memory."""
        return self._story.memory.load(address)

    def taken(self) -> Steps:
        """All that is on offer is taken."""
        while self._offered:
            yield

    def quiet(self) -> Steps:
        """And answered, and retired."""
        yield from self.taken()
        while self._flying or self._granted or self._offered:
            yield
        yield from [None] * 8


def run(
    script: Callable[[Directed], Steps],
    config: CachingMmuConfig = SMALL,
    *,
    memory: SparseMemory | None = None,
    latency: int = 1,
) -> Directed:
    """The bench at the end of a script; its log is permitted."""
    tables = Tables(memory)
    before = tables.memory.copy()
    bench = Directed(config, tables, script, latency)
    counted = simulate(config, bench)
    verdict = judge_run(bench.log, bench.faults, before, tables.memory, counted.get)
    assert verdict.problems == []
    bench.counts = verdict.counts
    return bench


def answers(bench: Directed) -> list[Result]:
    """In the order of the requests."""
    numbers: dict[int, int] = {}
    results: dict[int, Result] = {}
    for number, event in enumerate(bench.log):
        if isinstance(event, Accept):
            numbers[event.tag] = number
        elif isinstance(event, Answer):
            results[numbers[event.tag]] = event.result
    return [results[number] for number in sorted(results)]


def frames(bench: Directed) -> list[int | None]:
    """The frame of each answer; None of one that is not OK."""
    return [result.physical & ~0xFFF if isinstance(result, Translated) else None for result in answers(bench)]


def walks(bench: Directed) -> int:
    return sum(isinstance(event, WalkEnd) for event in bench.log)


def cycles(bench: Directed) -> list[int]:
    """From acceptance to answer, in the order of acceptance."""
    accepted: dict[int, int] = {}
    taken: dict[int, int] = {}
    for number, (event, when) in enumerate(zip(bench.log, bench.when, strict=True)):
        if isinstance(event, Accept):
            accepted[event.tag] = number
        elif isinstance(event, Answer):
            taken[accepted[event.tag]] = when
    return [when - bench.when[number] for number, when in sorted(taken.items())]
