"""What the front of an MMU that caches must know of the walks in flight: of one, or of several."""

from types import SimpleNamespace

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, fifo

from ptewalk.model import x86
from ptewalk.rtl.layouts import RequestLayout
from ptewalk.rtl.permissions import AccessClassLayout
from ptewalk.rtl.waiting import Waiting
from ptewalk.rtl.walkers import Walkers

__all__ = ["StageLayout", "WaitingLayout", "one_walk", "several_walks"]


class StageLayout(data.StructLayout):
    """A request on its way through the lookup.

    Members
    -------
    request : RequestLayout, access : AccessClassLayout
    canonical : 1
    again : 1
        It has waited once: a walk is its own.
    walks : 1
        It hit and was denied, so it is walked whatever is cached.
    overtaken : 1
        An invalidation came after the lookup: where the walk begins may be stale.
    epoch : unsigned(epoch_bits)
        In which it was accepted: what an invalidation that waits goes by.
    """

    def __init__(self, tag_bits: int, epoch_bits: int) -> None:
        flags = dict.fromkeys(("canonical", "again", "walks", "overtaken"), 1)
        flags["epoch"] = epoch_bits
        super().__init__({"request": RequestLayout(tag_bits), "access": AccessClassLayout(), **flags})


class WaitingLayout(data.StructLayout):
    """A request that waits to be looked up again; `walks` and `epoch` as its stage's."""

    def __init__(self, tag_bits: int, epoch_bits: int) -> None:
        super().__init__({"request": RequestLayout(tag_bits), "walks": 1, "epoch": epoch_bits})


def one_walk(r: SimpleNamespace, queue: fifo.SyncFIFO) -> SimpleNamespace:
    """What the front must know of the one walk in flight; see `several_walks`."""
    walked = r.walked
    return SimpleNamespace(
        walking=r.walking,
        next_waits=queue.r_rdy & ~r.walking,
        free=~r.walking & ~queue.r_rdy,
        joins=Const(0, 1),
        answers=Const(0, 1),
        fills=r.walking,
        linear=walked.request.linear,
        store=walked.access.store,
        probe=walked.access.probe,
        epoch=walked.epoch,
        overtaken=r.overtaken,
        passes=~r.overtaken,
    )


def several_walks(
    m: Module, walker: Walkers, context: data.View, r: SimpleNamespace, queue: Waiting
) -> SimpleNamespace:
    """What the front must know of several walks in flight.

    A request whose page is walked already waits for that walk, once. The others wait for a walker. While the one
    that waits longest may be walked nobody else starts a walk; while it waits for a walk others may.

    Returns
    -------
    SimpleNamespace
        walking: there are any. next_waits: the one that waits longest may be looked up again, and walked. free: a
        request that did not wait may be walked. joins: that in the second stage waits for a walk of its page.
        answers, fills: a walk may be answered in this cycle, and that takes the register of operations. Of that
        walk: linear, store, probe, epoch, and overtaken. passes: what passes now may be kept.
    """
    r.joined_1, r.joined_2 = Signal(name="joined_1"), Signal(name="joined_2")
    goes = Signal()  # the one that waits longest waits for a walker only, and did so in the last cycle
    m.d.sync += goes.eq(queue.r_rdy & ~queue.r_waits & ~queue.r_en)
    joins = Signal(walker.count)
    m.d.comb += [
        joins.eq(Mux(r.joined_2 | r.stage_2.walks, 0, walker.o_same)),
        queue.w_joins.eq(Mux(r.denied, 0, joins)),
        queue.walking.eq(walker.o_walking),
        queue.ended.eq(walker.o_ended),
        walker.i_context.eq(context),
        walker.i_access.eq(r.stage_2.access),
        walker.i_canonical.eq(r.stage_2.canonical),
        walker.i_epoch.eq(r.stage_2.epoch),
        walker.i_page.eq(r.stage_1.request.linear[x86.PAGE_SHIFT :]),
    ]
    room = walker.o_room
    return SimpleNamespace(
        walking=walker.o_walking.any(),
        next_waits=goes & room,
        # The head may have to wait anew for the walk that begins now; its turn stands.
        free=room & ~goes & ~r.turn,
        joins=joins.any(),
        answers=walker.o_judges,
        fills=walker.o_judges,
        linear=walker.o_linear,
        store=walker.o_store,
        probe=walker.o_probe,
        epoch=walker.o_epoch,
        overtaken=~walker.o_kept,
        passes=Const(1, 1),
    )
