"""What is proved of the queues of an MMU with several walkers: who waits is not lost, and has its turn in order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Array, Assert, Assume, Cover, Module, Signal, Value
from amaranth.lib import data

from ptewalk.cosim.formal.harness import Harness
from ptewalk.rtl.in_turn import InTurn
from ptewalk.rtl.waiting import Waiting

__all__ = ["InTurnHarness", "WaitingHarness", "opened_queue", "place_of"]

_DEPTH = 2


def opened_queue(m: Module, name: str, core: Any, inside: str, depth: int) -> SimpleNamespace:
    """Adds `core` as submodule `name`; level, next place and rows of the SyncFIFO that it has as submodule `inside`."""
    made = core.elaborate(None)
    queue = getattr(made.submodules, inside)
    opened = queue.elaborate(None)
    storage = opened.submodules.storage
    (reader,), (writer,) = storage.read_ports, storage.write_ports
    rows = [storage.read_port(domain="comb") for _ in range(depth)]
    m.d.comb += [row.addr.eq(place) for place, row in enumerate(rows)]
    # Elaborated already: what is inside is known.
    queue.elaborate, core.elaborate = lambda platform: opened, lambda platform: made
    m.submodules[name] = core
    return SimpleNamespace(
        level=queue.level, oldest=reader.addr, next=writer.addr, rows=Array(row.data for row in rows), depth=depth
    )


def place_of(queue: SimpleNamespace, ahead: Value) -> Value:
    """The row with so many before it."""
    return (queue.oldest + ahead)[: (queue.depth - 1).bit_length()]


class InTurnHarness(Harness):
    """What is pushed is at the head after exactly those that were before it, as it was pushed; any one is watched."""

    title = "in-turn"
    assumptions: tuple[str, ...] = (
        "walkers: at most as many wait as there is room for",
        "walkers: the head is taken only when valid",
    )
    depth = 3
    search_depth = 10

    def __init__(self, *, searching: bool = False) -> None:
        payload = data.StructLayout({"whose": 1, "what": 2})
        self.queue = InTurn(payload, depth=_DEPTH)
        super().__init__(self.queue, searching=searching)
        self.pick = Signal()  # free: watch what is pushed now
        self.ports.append(self.pick)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue = self.queue
        behind = opened_queue(m, "queue", queue, "behind", _DEPTH)
        count = Signal(range(_DEPTH + 3))  # that wait
        watching, ahead = Signal(), Signal(range(_DEPTH + 2))
        record = Signal.like(Value.cast(queue.new))
        m.d.comb += [Assume(~queue.push | (count <= _DEPTH)), Assume(~queue.take | queue.valid)]
        m.d.sync += count.eq(count + queue.push - queue.take)
        with m.If(watching):
            with m.If(queue.take):
                m.d.sync += [ahead.eq(ahead - 1), watching.eq(ahead != 0)]
        with m.Elif(queue.push & self.pick):
            m.d.sync += [watching.eq(1), ahead.eq(count - queue.take), record.eq(queue.new)]
        m.d.comb += [
            Assert(queue.valid == (count != 0)),
            Cover(watching & (ahead == _DEPTH) & record.all()),
            Cover(watching & (ahead == 0) & queue.take & queue.push),
        ]
        with m.If(watching & (ahead == 0)):
            m.d.comb += Assert(Value.cast(queue.head) == record)
        if not self.searching:
            m.d.comb += [
                Assert(behind.level + queue.valid == count),
                Assert(place_of(behind, behind.level) == behind.next),
                Assert(behind.level <= _DEPTH),
                Assert(~watching | (ahead < count)),
            ]
            with m.If(watching & (ahead != 0)):
                m.d.comb += Assert(behind.rows[place_of(behind, ahead - 1)] == record)
        return m


class WaitingHarness(Harness):
    """Who waits for a walk of its page does so exactly until that walk ends; in order, and none is lost.

    Any one is watched. Where a walker began anew before one that waited for it came to the head, it waits for that.
    """

    title = "waiting"
    assumptions: tuple[str, ...] = (
        "glue-answers/2: at most as many wait as there is room for, and none is taken that is not there",
        "glue-answers/2: who joins joins walks that are in flight",
        "walkers: a walk ends as `ended` says, and another begins not before",
    )
    depth = 3
    search_depth = 10
    WALKERS = 2

    def __init__(self, *, searching: bool = False) -> None:
        self.waiting = Waiting(width=2, depth=_DEPTH, walkers=self.WALKERS)
        super().__init__(self.waiting, searching=searching)
        self.pick = Signal()  # free: watch who comes now
        self.ports.append(self.pick)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        waiting = self.waiting
        queue = opened_queue(m, "waiting", waiting, "queue", _DEPTH)
        count = Signal(range(_DEPTH + 2))
        watching, ahead, joined = Signal(), Signal(range(_DEPTH + 1)), Signal(self.WALKERS)
        item, ends = Signal(2), Signal()  # ends: of the walk that it joined, modulo 2
        before = SimpleNamespace(walking=Signal(self.WALKERS), ended=Signal(self.WALKERS))
        comes, goes = waiting.w_en, waiting.r_en
        m.d.sync += [
            before.walking.eq(waiting.walking),
            before.ended.eq(waiting.ended),
            count.eq(count + comes - goes),
        ]
        joins, several = waiting.w_joins, Signal()  # it joined two walks of its page, and waits for one
        ended = Signal(self.WALKERS)  # in the last cycle
        m.d.comb += ended.eq(before.ended ^ waiting.ended)
        m.d.comb += [
            Assume(~comes | (count < _DEPTH)),
            Assume(~goes | (count != 0)),
            Assume((joins & ~waiting.walking) == 0),
            Assume((ended & ~before.walking) == 0),
            Assume((before.walking & ~waiting.walking & ~ended) == 0),
            Assume((ended & waiting.walking) == 0),
        ]
        later = ended & joined
        with m.If(watching):
            m.d.sync += ends.eq(ends ^ later.any())
            with m.If(goes):
                m.d.sync += [ahead.eq(ahead - 1), watching.eq(ahead != 0)]
        with m.Elif(comes & self.pick):
            m.d.sync += [watching.eq(1), ahead.eq(count - goes), item.eq(waiting.w_data), ends.eq(0)]
            m.d.sync += several.eq(joins.all())
            m.d.sync += joined.eq(joins & ~(joins - 1)[: self.WALKERS])  # one of them
        head = watching & (ahead == 0)
        walked = (joined & waiting.walking).any()
        past = ends ^ later.any()
        m.d.comb += [
            Assert(waiting.r_rdy == (count != 0)),
            Assert(~head | (waiting.r_data == item)),
            Assert(~head | (waiting.r_joined == joined.any())),
            Assert(~head | (waiting.r_waits == (walked & ~past))),
            Cover(head & waiting.r_waits & goes),
            Cover(head & joined[1] & ~waiting.r_waits & (count == _DEPTH)),
            Cover(head & walked & ends),
            Cover(head & waiting.r_waits & several),
        ]
        if not self.searching:
            held = data.StructLayout({"item": 2, "joins": 1, "whose": 1, "ended": 1})
            row = data.View(held, self._row(m, queue, ahead))
            m.d.comb += [
                Assert(queue.level == count),
                Assert(count <= _DEPTH),
                Assert(place_of(queue, queue.level) == queue.next),
                Assert(~watching | (ahead < count)),
                Assert((joined & (joined - 1)[: self.WALKERS]) == 0),
            ]
            with m.If(watching):
                m.d.comb += [
                    Assert(row.item == item),
                    Assert(row.joins == joined.any()),
                    Assert(~row.joins | (joined == (1 << row.whose))),
                    Assert(~row.joins | (row.ended == (waiting.ended.bit_select(row.whose, 1) ^ past))),
                ]
        return m

    def _row(self, m: Module, queue: SimpleNamespace, ahead: Value) -> Signal:
        """What the queue holds of the one that is watched."""
        row = Signal(len(queue.rows[0]), name="row")
        m.d.comb += row.eq(queue.rows[place_of(queue, ahead)])
        return row
