"""An MMU that caches: a TLB before the walker, PCID slots, invalidation, faults and grants of many in flight."""

from types import SimpleNamespace
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import linux, x86
from ptewalk.rtl.caching_config import CachingMmuConfig
from ptewalk.rtl.delivery import Delivery
from ptewalk.rtl.entry import canonical, marks_and_mends
from ptewalk.rtl.flights import StageLayout, WaitingLayout, one_walk, several_walks
from ptewalk.rtl.interfaces import ContextSignature, RequesterSignature
from ptewalk.rtl.layouts import ContextLayout, InvalidationLayout, RequestLayout
from ptewalk.rtl.log.dirty_log import DirtyLog
from ptewalk.rtl.maintenance import Maintenance
from ptewalk.rtl.mmu import COUNTER_BITS
from ptewalk.rtl.permissions import AccessRights, classify, key_rights
from ptewalk.rtl.tlb import CachedLayout, Tlb, TlbOp
from ptewalk.rtl.upper_caches import UpperCaches
from ptewalk.rtl.waiting import Waiting
from ptewalk.rtl.walker import Walker
from ptewalk.rtl.walkers import Walkers

__all__ = ["CachingMmu", "CachingMmuConfig"]


_STAGES: Final = 8
"""Requests in flight that neither wait nor are walked, at most: in the lookup, and on their way out."""


class CachingMmu(Component):
    """A TLB, one walker behind it, and who keeps both true. Meaning: docs/mmu.md.

    A hit is answered three cycles after its request was accepted, one a cycle. What misses is walked, three cycles
    later than the walker alone would answer; while a walk is in flight others wait, and are looked up again when it has
    ended. Answers come in any order, by tag.

    Parameters
    ----------
    config : CachingMmuConfig

    Members
    -------
    requester, supervisor
        As the fault unit's; tags are unique among requests in flight and grants outstanding.
    contexts : In(ContextSignature, with pcids)
        One is taken while no request is in flight.
    invalidations : In(stream of InvalidationLayout)
        In force for all requests that are accepted in a later cycle.
    completions : Out(stream of CompletionLayout, always ready)
        One for each that waits, in order.
    memory, o_written, o_walked
        As the walker's.
    log : Out(LogSignature), records : Out(RecordPortSignature)
        What software sees of the dirty log, and where it writes; only with `log`. See docs/log.md.
    delivered_faults, lost_faults, marks, mends : Out(32)
        As the MMU's without a cache.
    hits, overtaken, replays, wraps : Out(32)
        Requests answered by the TLB; walks that ended well and were not kept since an invalidation overtook them;
        requests that waited and were looked up again; times that the count of PCID slots came round.

    Each counter wraps round.

    Attributes
    ----------
    registers : namespace
        Of the lookup's stages, the walk in flight and who waits; once elaborated. Proofs look at them.
    """

    def __init__(self, config: CachingMmuConfig = CachingMmuConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        walker = config.walker
        bits, tag_bits, soft_dirty = walker.physical_bits, walker.tag_bits, walker.soft_dirty
        slot_bits = (config.slots - 1).bit_length()
        self.tlb = Tlb(
            physical_bits=bits,
            slot_bits=slot_bits,
            small=(config.small_sets, config.small_ways),
            large=(config.large_sets, config.large_ways),
            soft_dirty=soft_dirty,
            split=config.split_lookup,
            few_resets=config.read_grants,
        )
        self.uppers = UpperCaches(
            levels=walker.levels,
            physical_bits=bits,
            slot_bits=slot_bits,
            entries=config.upper_entries,
            split=config.split_lookup,
            few_resets=config.read_grants,
        )
        self.maintenance = Maintenance(
            physical_bits=bits, slot_bits=slot_bits, soft_dirty=soft_dirty, few_resets=config.read_grants
        )
        self.delivery = Delivery(
            physical_bits=bits,
            tag_bits=tag_bits,
            fault_depth=config.fault_depth,
            split=config.split_lookup,
            ahead=config.walkers == 1,
            read_grants=config.read_grants,
            flights=config.waiting + config.walkers + _STAGES,
            records=config.log is not None,
        )
        self.log_unit = DirtyLog(config.log, physical_bits=bits, tag_bits=tag_bits) if config.log else None
        self.walker = (
            Walker(walker, starts=True, logs=config.log is not None, few_resets=config.read_grants)
            if config.walkers == 1
            else Walkers(walker, count=config.walkers, epoch_bits=len(self.delivery.epoch))
        )
        of_walker = self.walker.signature.members
        members = {
            "requester": In(RequesterSignature(physical_bits=bits, tag_bits=tag_bits, retires=True)),
            "supervisor": self.delivery.signature.members["supervisor"],
            "contexts": In(ContextSignature(physical_bits=bits, soft_dirty=soft_dirty, pcids=True)),
            "invalidations": In(stream.Signature(InvalidationLayout())),
            "completions": self.delivery.signature.members["completions"],
            "memory": of_walker["memory"],
            "o_written": of_walker["o_written"],
        }
        if walker.trace:
            members |= {name: of_walker[name] for name in ("o_walked", "o_walker") if name in of_walker}
        if self.log_unit is not None:
            members |= {"log": self.log_unit.signature.members["software"]}
            members |= {"records": self.log_unit.signature.members["records"]}
        self._counters = ["delivered_faults", "lost_faults", *(["marks", "mends"] if soft_dirty else [])]
        self._counters += ["hits", "overtaken", "replays", "wraps"]
        members |= {name: Out(unsigned(COUNTER_BITS)) for name in self._counters}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        tag_bits, soft_dirty = config.walker.tag_bits, config.walker.soft_dirty
        several = config.walkers > 1
        m.submodules.walker = walker = self.walker
        m.submodules.tlb = tlb = self.tlb
        m.submodules.uppers = uppers = self.uppers
        m.submodules.maintenance = maintenance = self.maintenance
        m.submodules.delivery = delivery = self.delivery
        epoch_bits = len(delivery.epoch)
        waiting = WaitingLayout(tag_bits, epoch_bits)
        # With a log a walk keeps its place in the queue, since it may be put back.
        places = config.waiting + (self.log_unit is not None)
        m.submodules.queue = queue = (
            Waiting(width=waiting.size, depth=config.waiting, walkers=config.walkers)
            if several
            else fifo.SyncFIFO(width=waiting.size, depth=places)
        )

        connect(m, flipped(self.supervisor), delivery.supervisor)
        if self.log_unit is None:
            connect(m, walker.memory, flipped(self.memory))
        connect(m, walker.o_written, flipped(self.o_written))
        if config.walker.trace:
            connect(m, walker.o_walked, flipped(self.o_walked))
            if several:
                m.d.comb += self.o_walker.eq(walker.o_walker)
        requests, responses = self.requester.requests, self.requester.responses
        m.d.comb += [
            responses.payload.eq(delivery.responses.payload),
            responses.valid.eq(delivery.responses.valid),
            delivery.responses.ready.eq(responses.ready),
            delivery.retired.payload.eq(self.requester.retired.payload),
            delivery.retired.valid.eq(self.requester.retired.valid),
        ]

        context = Signal(ContextLayout(config.walker.physical_bits, soft_dirty=soft_dirty, pcids=True))
        # In a bridge, whose MMU grants reads, what is wide and counts beneath a bit that a reset clears takes none:
        # that net would have thousands of ends more, by wires that LUT RAM needs as well.
        wide = {"reset_less": config.read_grants}
        self.registers = r = SimpleNamespace(
            valid_1=Signal(),
            valid_2=Signal(),
            stage_1=Signal(StageLayout(tag_bits, epoch_bits), **wide),
            stage_2=Signal(StageLayout(tag_bits, epoch_bits), **wide),
            hit=Signal(),
            entry=Signal(CachedLayout(config.walker.physical_bits, soft_dirty=soft_dirty), **wide),
            # As many bits from below are 1 as requests may come: whether one may is a bit.
            room=Signal(places, init=(1 << places) - 1),
            walking=Signal(),
            walked=Signal(StageLayout(tag_bits, epoch_bits), **wide),
            overtaken=Signal(),
            blocked=Signal(),  # the walk's answer waits for the hits before it: no more of them
            took=Signal(),  # the walk was answered in the last cycle: its operation follows, if it has one
            operates=Signal(),
            faulted=Signal(),  # by a page fault
            turn=Signal(),  # of a request that waited to be looked up again
            armed=Signal(),  # its address is in the TLB's register
            began=Signal(),  # a walk did in the last cycle
            served=Signal(),  # a hit was delivered in the last cycle,
            denied=Signal(),  # and is taken back: this request has to walk
            refused=Signal(waiting, **wide),
            early=Signal(),  # what was delivered in the last cycle is no answer
            lost=Signal(),  # for the counters
            again=Signal(),
        )
        if config.split_lookup:
            # The stage before the first; the tag that is in the first, or that of the walk; one has to wait, and left
            # the lookup in the last cycle.
            r.valid_0, r.coming_tag, r.waits = Signal(name="valid_0"), Signal(tag_bits), Signal()
            r.stage_0 = Signal(StageLayout(tag_bits, epoch_bits), name="stage_0", reset_less=True)
        # In a bridge, whose MMU grants reads, a long net and the counter's carry would be in one cycle.
        late_wraps = config.split_lookup or config.read_grants
        if late_wraps:
            r.wrapped = Signal()
        r.lookups = lookups = [(r.valid_1, r.stage_1)]
        if config.split_lookup:
            lookups.insert(0, (r.valid_0, r.stage_0))
        flights = several_walks(m, walker, context, r, queue) if several else one_walk(r, queue)
        still = maintenance.idle & ~r.took  # nothing is about to be done to the TLB
        quiet = still & ~tlb.busy
        idle = ~r.valid_1 & ~r.valid_2 & ~flights.walking & ~queue.r_rdy & ~delivery.valid
        if config.split_lookup:
            idle &= ~r.valid_0 & ~r.waits
        advance, goes, accepted = Signal(), Signal(), Signal()
        m.d.comb += [
            goes.eq(delivery.take & ~r.denied),
            advance.eq(~r.valid_2 | goes),
            delivery.cancel.eq(r.denied | r.early),
            maintenance.may_begin.eq(~tlb.busy & ~r.took),
            maintenance.may_change.eq(idle),
            maintenance.may_wait.eq(delivery.may_wait),
            delivery.waits.eq(maintenance.begins & (self.invalidations.payload.wait != x86.Wait.NONE)),
            delivery.wait.eq(self.invalidations.payload.wait),
            self.completions.payload.eq(delivery.completions.payload),
            self.completions.valid.eq(delivery.completions.valid),
            delivery.accepted.eq(accepted),
        ]
        if self.log_unit is None:
            m.d.comb += delivery.idle.eq(idle)
        connect(m, flipped(self.invalidations), maintenance.invalidations)
        self._context(m, context)

        # Cycle 0: a request, or one that waited; the TLB is read, the access is classified.

        found = walker.requester.responses
        may_take = Signal()
        again, turn = Signal(), Signal()
        asked, head = Signal(RequestLayout(tag_bits)), data.View(waiting, queue.r_data)
        coming = Cat(valid & stage.again for valid, stage in lookups).any()
        replaying = coming | (r.valid_2 & r.stage_2.again)
        m.d.comb += [
            again.eq(r.armed & advance & quiet),
            requests.ready.eq(
                Cat(
                    *(advance, still, ~tlb.owned, ~r.blocked, ~self.contexts.valid),
                    *(r.room[0], delivery.ready, ~self.supervisor.drain),
                ).all()
            ),
            accepted.eq(requests.valid & requests.ready),
            asked.eq(Mux(r.armed, head.request, requests.payload)),
            queue.r_en.eq(again),
            tlb.linear.eq(requests.payload.linear),
            tlb.own.eq(turn | r.operates | ~maintenance.idle),
            tlb.slot.eq(maintenance.slot),
            # Whether anything is looked up is known later, from `valid_1`.
            tlb.look.eq(advance & ~tlb.busy),
        ]
        # While one waits that may be walked nobody else starts a walk.
        m.d.comb += turn.eq(~again & (r.turn | (flights.next_waits & ~replaying)))
        m.d.sync += [r.turn.eq(turn), r.armed.eq(~again & r.turn & quiet & ~flights.answers)]
        overtakes = Signal()
        rows = [Signal.like(index, name=f"row_{number}") for number, index in enumerate(uppers.index)]
        la57 = context.control.la57 if config.walker.levels == x86.LEVELS_5 else Const(0)
        first_valid, first = lookups[0]
        with m.If(advance):
            m.d.sync += [
                first_valid.eq(accepted | again),
                first.request.eq(asked),
                first.request.linear.eq(tlb.asked),
                *(first.access[name].eq(value) for name, value in classify(asked, context.control).items()),
                first.canonical.eq(canonical(tlb.asked, la57)),
                first.again.eq(again),
                first.walks.eq(head.walks & r.armed),
                first.epoch.eq(Mux(r.armed, head.epoch, delivery.epoch)),
                first.overtaken.eq(overtakes),
            ]
            if config.split_lookup:
                m.d.sync += [r.valid_1.eq(r.valid_0), r.stage_1.eq(r.stage_0)]
                m.d.sync += r.stage_1.overtaken.eq(r.stage_0.overtaken | overtakes)
            m.d.sync += [
                *(row.eq(found) for row, found in zip(rows, uppers.rows(tlb.asked), strict=True)),
                # Cycle 1: the way that hit, and what upper entries there are.
                r.valid_2.eq(r.valid_1),
                r.stage_2.eq(r.stage_1),
                r.stage_2.overtaken.eq(r.stage_1.overtaken | overtakes),
                r.hit.eq(tlb.hit & r.stage_1.canonical),
                r.entry.eq(tlb.entry),
            ]
        m.d.comb += [
            *(index.eq(row) for index, row in zip(uppers.index, rows, strict=True)),
            uppers.linear.eq(first.request.linear),
            uppers.slot.eq(maintenance.slot),
            uppers.look.eq(advance),
        ]
        with m.If(~advance & overtakes):
            m.d.sync += [stage.overtaken.eq(1) for stage in (*(stage for _, stage in lookups), r.stage_2)]

        # Cycle 2: an allowed, marked hit is answered; all else is a walk.

        ok, denied = self._judge(m, context, r)
        served, walks, waits, waits_here = Signal(), Signal(), Signal(), Signal(waiting)
        free = flights.free & ~coming
        begins = (free | r.stage_2.again) & ~flights.joins
        m.d.comb += [
            served.eq(r.valid_2 & goes & ok),
            walks.eq(r.valid_2 & goes & ~ok & begins),
            waits.eq(r.valid_2 & goes & ~ok & ~begins),
            queue.w_data.eq(waits_here),
            walker.requester.requests.payload.eq(r.stage_2.request),
            walker.requester.requests.valid.eq(walks),
            walker.i_start.eq(uppers.start),
        ]
        m.d.sync += [
            r.served.eq(served),
            r.denied.eq(served & denied),
            r.refused.eq(Cat(r.stage_2.request, Const(1, 1), r.stage_2.epoch)),
            r.began.eq(walks),
        ]
        if config.split_lookup:
            written = r.waits
            m.d.sync += r.waits.eq(waits)
            m.d.comb += waits_here.eq(Cat(r.refused.request, r.denied, r.refused.epoch))
        else:
            written = waits
            m.d.comb += waits_here.eq(Mux(r.denied, r.refused, Cat(r.stage_2.request, Const(0, 1), r.stage_2.epoch)))
        m.d.comb += queue.w_en.eq(written | r.denied)
        left = r.began if self.log_unit is None else r.took
        leaves = left | (r.served & ~r.denied)
        with m.If(accepted & ~leaves):
            m.d.sync += r.room.eq(r.room >> 1)
        with m.Elif(leaves & ~accepted):
            m.d.sync += r.room.eq(Cat(1, r.room))

        # The walk: answered from the walker, when no hit is on its way; what it found is kept.

        taken = Signal()
        m.d.comb += [
            may_take.eq(delivery.take & ~r.valid_2 & quiet & ~maintenance.begins),
            found.ready.eq(may_take),
            taken.eq(found.valid & may_take),
        ]
        m.d.sync += r.blocked.eq(found.valid & ~may_take)
        # What was looked up before an invalidation is stale; what will be read is not.
        stale = uppers.start.cached & (r.stage_2.overtaken | overtakes)
        if several:
            m.d.comb += [walker.i_overtakes.eq(overtakes), walker.i_stale.eq(stale), walker.i_look.eq(advance)]
            with m.If(advance):
                m.d.sync += [r.joined_1.eq(again & queue.r_joined), r.joined_2.eq(r.joined_1)]
        else:
            with m.If(overtakes):
                m.d.sync += r.overtaken.eq(1)
            with m.If(walks):
                m.d.sync += [r.walking.eq(1), r.overtaken.eq(stale)]
            with m.Elif(taken):
                m.d.sync += r.walking.eq(0)
            with m.If(~r.walking):
                m.d.sync += r.walked.eq(r.stage_2)

        well = found.payload.outcome == x86.Outcome.OK
        faults = found.payload.outcome == x86.Outcome.PAGE_FAULT
        # A page fault drops what leads to its address, as an invalidation does: lookups before it may hold that. No
        # walk begins in the cycle of its answer.
        m.d.comb += overtakes.eq((maintenance.begins & maintenance.covers) | r.faulted)
        m.d.sync += r.faulted.eq(taken & faults)
        keeps = taken & well & ~flights.probe
        fill, translation = tlb.ops.payload, walker.o_translation
        m.d.sync += [r.took.eq(taken), r.operates.eq((keeps & ~flights.overtaken) | (taken & faults))]
        m.d.comb += [tlb.hold.eq(r.took), tlb.ops.valid.eq(r.operates | maintenance.ops.valid)]
        with m.If(~maintenance.idle):
            m.d.comb += fill.eq(maintenance.ops.payload)
        with m.Else():
            m.d.comb += [
                fill.kind.eq(Mux(faults, TlbOp.DROP, TlbOp.FILL)),
                # Else the register is the next request's that is looked up again.
                fill.linear.eq(Mux(flights.fills, flights.linear, head.request.linear)),
                fill.slot.eq(maintenance.slot),
                fill.g.eq(translation.g & context.control.pge),
                *(fill.entry[str(name)].eq(translation[str(name)]) for name, _ in r.entry.shape()),
            ]
        if self.log_unit is not None:
            self._log(m, self.log_unit, context, idle, r.walked.epoch, ~written & ~r.denied)
            with m.If(self.log_unit.again):
                m.d.comb += [
                    queue.w_data.eq(Cat(r.walked.request, Const(0, 1), delivery.epoch)),
                    queue.w_en.eq(1),
                ]
                m.d.sync += r.walking.eq(0)
        m.d.comb += [
            maintenance.ops.ready.eq(tlb.ops.ready),
            uppers.root.eq(context.root),
            uppers.la57.eq(la57),
            uppers.fill.eq(walker.o_upper),
            uppers.fill_slot.eq(maintenance.slot),
            uppers.passes.eq(walker.o_passes & flights.passes),
            uppers.clear.eq(tlb.forgets),
        ]

        # What is delivered.

        outgoing = delivery.outgoing
        # The verdict of a walk is too late for the register: what turns out to be no answer is taken back.
        early = walker.o_judges & may_take
        m.d.comb += [
            delivery.load.eq(served | early),
            delivery.look.eq(advance),
        ]
        if config.split_lookup:
            # Known a cycle before: it is in a register.
            m.d.comb += delivery.look_tag.eq(r.coming_tag)
            with m.If(advance):
                walks_now = Mux(flights.walking, r.walked.request.tag, r.stage_2.request.tag)
                m.d.sync += r.coming_tag.eq(Mux(r.valid_0, r.stage_0.request.tag, walks_now))
            m.d.comb += tlb.step.eq(advance)
        else:
            m.d.comb += delivery.look_tag.eq(Mux(r.valid_1, r.stage_1.request.tag, r.walked.request.tag))
        m.d.sync += r.early.eq(early & ~found.valid)
        with m.If(r.valid_2):
            self._answer_hit(m, outgoing, r.entry, r.stage_2)
        with m.Else():
            m.d.comb += [
                outgoing.response.eq(found.payload),
                outgoing.response.code.eq(walker.o_code),
                outgoing.linear.eq(flights.linear),
                outgoing.store.eq(flights.store),
                outgoing.probe.eq(flights.probe),
                outgoing.epoch.eq(flights.epoch),
            ]
        m.d.sync += [r.lost.eq(keeps & flights.overtaken), r.again.eq(again)]
        wraps = maintenance.wraps
        if late_wraps:
            m.d.sync += r.wrapped.eq(wraps)
            wraps = r.wrapped
        self._count(m, hits=r.served & ~r.denied, overtaken=r.lost, replays=r.again, wraps=wraps)
        return m

    def _context(self, m: Module, context: data.View) -> None:
        """A context goes to maintenance, and into the register here, which is the walker's too."""
        contexts, maintenance, walker = self.contexts, self.maintenance, self.walker
        m.d.comb += [
            maintenance.contexts.payload.eq(contexts.payload),
            maintenance.contexts.valid.eq(contexts.valid),
            contexts.ready.eq(maintenance.contexts.ready),
            maintenance.before.eq(context),
        ]
        if isinstance(walker, Walker):
            for name, _ in walker.i_context.shape():
                m.d.comb += walker.i_context[name].eq(context[name])
        with m.If(contexts.valid & contexts.ready):
            m.d.sync += context.eq(contexts.payload)

    def _log(
        self, m: Module, log: DirtyLog, context: data.View, idle: Value, epoch: Value, may_put_back: Value
    ) -> None:
        """The log stands before the port's swaps. A walk that waits for room is not waited for: it is put back."""
        m.submodules.log = log
        delivery, walker, inner, outer = self.delivery, self.walker, self.walker.memory, self.memory
        assert isinstance(walker, Walker)
        connect(m, inner.swaps, log.marks)
        connect(m, log.swaps, flipped(outer.swaps))
        connect(m, inner.reads, flipped(outer.reads))
        for name in ("data", "swapped"):
            ours, theirs = getattr(inner, name), getattr(outer, name)
            m.d.comb += [ours.valid.eq(theirs.valid), ours.payload.eq(theirs.payload)]
        connect(m, log.software, flipped(self.log))
        connect(m, log.records, flipped(self.records))
        told = walker.o_written
        m.d.comb += [
            *(log.written.valid.eq(told.valid), log.written.payload.eq(told.payload), log.pcid.eq(context.pcid)),
            *(log.drains.eq((epoch[0] != delivery.epoch[0]) & may_put_back), walker.i_again.eq(log.again)),
            *(delivery.moves.eq(log.again), delivery.moves_epoch.eq(epoch[0])),
            *(log.closes.eq(delivery.closes), delivery.closed.eq(log.closed)),
            delivery.idle.eq(idle & log.quiet),
        ]

    def _judge(self, m: Module, context: data.View, r: SimpleNamespace) -> tuple[Value, Value]:
        """Whether the TLB's entry answers, if it allows the access: it has the marks that a store needs; and if not."""
        soft_dirty = self.config.walker.soft_dirty
        m.submodules.rights = rights = AccessRights(soft_dirty=soft_dirty)
        entry, access = r.entry, r.stage_2.access
        marked = entry.d
        if soft_dirty:
            marked &= entry.soft_dirty | (context.track == linux.Track.OFF)
        m.d.comb += [
            rights.access.eq(access),
            rights.upper_rw.eq(1),
            rights.leaf_rw.eq(entry.rw),
            rights.us.eq(entry.us),
            rights.xd.eq(entry.xd),
            rights.user_key.eq(key_rights(context.pkru, entry)),
            rights.supervisor_key.eq(key_rights(context.pkrs, entry)),
        ]
        return r.hit & ~r.stage_2.walks & (~access.store | marked), rights.denied

    @staticmethod
    def _answer_hit(m: Module, outgoing: data.View, entry: data.View, stage: data.View) -> None:
        """The answer of a hit."""
        small, large = (x86.LEVEL_SHIFT[level] for level in (1, 2))
        linear, response = stage.request.linear, outgoing.response
        in_small, in_large = Cat(linear[:small], entry.frame), Cat(linear[:large], entry.frame[large - small :])
        m.d.comb += [
            response.outcome.eq(x86.Outcome.OK),
            response.physical.eq(Mux(entry.level == 1, in_small, in_large)),
            *(response[name].eq(entry[name]) for name in ("level", "pwt", "pcd", "pat")),
            response.tag.eq(stage.request.tag),
            outgoing.linear.eq(linear),
            outgoing.store.eq(stage.access.store),
            outgoing.probe.eq(stage.access.probe),
            outgoing.epoch.eq(stage.epoch),
        ]

    def _count(self, m: Module, **events: Value) -> None:
        """Counters; what is told outside is counted a cycle later."""
        counted: dict[str, Value] = {"delivered_faults": self.delivery.delivered, "lost_faults": self.delivery.lost}
        if self.config.walker.soft_dirty:
            counted |= marks_and_mends(self.walker.o_written)
        for name, told in counted.items():
            events[name] = Signal(name=f"counts_{name}")
            m.d.sync += events[name].eq(told)
        for name, happens in events.items():
            counter = getattr(self, name)
            m.d.sync += counter.eq(counter + happens)
