"""Several walks in flight on one datapath: what is known of each stands in memories, and what comes is done in turn."""

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.answer import WalkAnswer
from ptewalk.rtl.entry import EntryCheck, EntryLayout, EntryUpdate, index_of, mendable, slot
from ptewalk.rtl.in_turn import InTurn
from ptewalk.rtl.interfaces import ID_BITS, MemoryPortSignature, RequesterSignature
from ptewalk.rtl.layouts import (
    ContextLayout,
    EntryWrittenLayout,
    RequestLayout,
    StartLayout,
    TranslationLayout,
    UpperEntryLayout,
    WalkedLayout,
)
from ptewalk.rtl.memory_port import ResetGeneration
from ptewalk.rtl.permissions import AccessClassLayout, AccessRights, key_rights
from ptewalk.rtl.walk_step import (
    PAGE_BITS,
    FoundLayout,
    StepLayout,
    index_below,
    number_of,
    page_of,
    rights_below,
)
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["MOST_WALKERS", "Walkers"]

MOST_WALKERS = 8
"""Walks in flight at most."""


class Walkers(Component):
    """As many walks in flight as there are walkers, on one datapath: an entry a cycle is looked at, one in two judged.

    A walk alone takes as many cycles as `Walker` would take for it. What must wait does so in order: reads that memory
    does not take, walks that are to be judged, what memory said of swaps. Each has at most one place for each walker,
    and so always room.

    Parameters
    ----------
    config : WalkerConfig
        `observe` does not count.
    count : int
        Walkers, 2 to `MOST_WALKERS`.
    epoch_bits : int
        Width of what is told with a request and comes back with its answer; default 1.

    Members
    -------
    requester : In(RequesterSignature)
        A request is taken when a walker is free. Answers come in any order.
    i_start : In(StartLayout), i_access : In(AccessClassLayout), i_canonical : In(1)
        Of the request: where its walk begins, its class, and whether its address is canonical.
    i_epoch : In(epoch_bits), o_epoch : Out(epoch_bits)
        Told with the request; of that which is answered.
    i_stale : In(1)
        Of the request: its walk leaves nothing, since what it begins below is stale.
    i_context : In(ContextLayout)
        Holds while any walk is in flight.
    i_overtakes : In(1)
        No walk in flight leaves anything.
    i_page : In(PAGE_BITS), i_look : In(1)
        Page of the request that may be the next one; it is looked for among the walks in flight.
    o_same : Out(count)
        The next request's page is walked there, and will be kept. From a register.
    o_walking, o_ended : Out(count)
        Walkers that are not free; those that ended an odd number of walks.
    o_room : Out(1)
        One is free: a cycle later than it is, and from a register.
    memory : Out(MemoryPortSignature)
        A read or a swap of each walker is outstanding at most. Ids: the walker below the generation.
    o_translation, o_written, o_walked, o_upper, o_passes, o_judges, o_code
        As the walker's; `o_written` when the swap's answer is looked at.
    o_walker : Out(log2 of `count`)
        Whose walk is answered; only with `trace`.
    o_linear : Out(64), o_store, o_probe : Out(1)
        Of the request that is answered.
    o_kept : Out(1)
        Its walk was not overtaken, and is no probe's.
    """

    def __init__(self, config: WalkerConfig, *, count: int, epoch_bits: int = 1) -> None:
        self.config = config
        self.count = count
        self.bits = (count - 1).bit_length()
        bits, tag_bits, soft_dirty = config.physical_bits, config.tag_bits, config.soft_dirty
        members: dict[str, Any] = {
            "requester": In(RequesterSignature(physical_bits=bits, tag_bits=tag_bits)),
            "i_start": In(StartLayout(bits, config.levels)),
            "i_access": In(AccessClassLayout()),
            "i_canonical": In(1),
            "i_epoch": In(epoch_bits),
            "i_stale": In(1),
            "i_context": In(ContextLayout(bits, soft_dirty=soft_dirty, pcids=True)),
            "i_overtakes": In(1),
            "i_page": In(PAGE_BITS),
            "i_look": In(1),
            "o_same": Out(count),
            "o_walking": Out(count),
            "o_ended": Out(count),
            "o_room": Out(1),
            "memory": Out(MemoryPortSignature(bits, walkers=count)),
            "o_translation": Out(TranslationLayout(bits, soft_dirty=soft_dirty)),
            "o_written": Out(stream.Signature(EntryWrittenLayout(bits, tag_bits), always_ready=True)),
            "o_upper": Out(UpperEntryLayout(bits, config.levels)),
            "o_passes": Out(1),
            "o_judges": Out(1),
            "o_code": Out(16),
            "o_linear": Out(64),
            "o_store": Out(1),
            "o_probe": Out(1),
            "o_epoch": Out(epoch_bits),
            "o_kept": Out(1),
        }
        if config.trace:
            members["o_walked"] = Out(stream.Signature(WalkedLayout(bits, tag_bits), always_ready=True))
            members["o_walker"] = Out(self.bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, count, whose = self.config, self.count, unsigned(self.bits)
        physical = unsigned(config.physical_bits)
        step = StepLayout(config.levels)
        next_read = data.StructLayout({"whose": whose, "address": physical, "step": step, "good": 1})
        read = data.StructLayout({"address": physical, "id": unsigned(ID_BITS + self.bits)})
        turn = data.StructLayout({"whose": whose, "noncanonical": 1, "after": 1, "done": 1, "error": 1})
        said = data.StructLayout({"whose": whose, "done": 1, "error": 1})
        self.registers = r = SimpleNamespace(
            keeps=Signal(count),  # the walk is no probe's, and was not overtaken
            pages=[Signal(PAGE_BITS, name=f"page_{number}") for number in range(count)],
            matches=Signal(count),
            judging=Signal(),
        )
        asked = data.StructLayout(
            {"request": RequestLayout(config.tag_bits), "access": AccessClassLayout(), "epoch": len(self.i_epoch)}
        )
        entered = data.StructLayout({"step": step, "place": physical, "found": FoundLayout()})
        known = data.StructLayout({"turn": turn, "asked": asked, "entered": entered})
        m.submodules.requests = requested = Memory(shape=asked, depth=count, init=[])
        m.submodules.steps = steps = Memory(shape=step, depth=count, init=[])
        m.submodules.places = places = Memory(shape=physical, depth=count, init=[])
        m.submodules.entries = entries = Memory(shape=entered, depth=count, init=[])
        m.submodules.generation = generation = ResetGeneration()
        m.submodules.begun = to_begin = fifo.SyncFIFO(width=next_read.size, depth=count)
        m.submodules.further = to_go_on = fifo.SyncFIFO(width=next_read.size, depth=count)
        m.submodules.offered = offered = fifo.SyncFIFO(width=read.size, depth=count)
        m.submodules.swapped = swaps_said = fifo.SyncFIFO(width=said.size, depth=count)
        m.submodules.turns = turns = InTurn(turn, depth=count)

        # A walk begins.

        request = self.requester.requests
        begins = Signal()
        free, free_number = Signal(count), Signal(whose)
        m.d.comb += [
            free.eq(~self.o_walking & (self.o_walking + 1)),
            free_number.eq(number_of(free)),
            request.ready.eq(self.o_room),
            begins.eq(request.valid & request.ready),
        ]
        start, linear = self.i_start, request.payload.linear
        index = Signal(x86.INDEX_BITS)
        with m.Switch(start.at):
            for level in range(1, config.levels + 1):
                with m.Case(1 << (level - 1)):
                    m.d.comb += index.eq(index_of(linear, level))
        first, write_request = Signal(next_read), requested.write_port()
        m.d.comb += [
            first.whose.eq(free_number),
            first.address.eq(slot(start.frame, index)),
            first.step.at.eq(start.at),
            first.step.rights.eq(start.rights),
            first.step.cached.eq(start.cached),
            first.good.eq(self.i_canonical),
            write_request.addr.eq(free_number),
            write_request.data.request.eq(request.payload),
            write_request.data.access.eq(self.i_access),
            write_request.data.epoch.eq(self.i_epoch),
            write_request.en.eq(begins),
        ]
        begun = free & begins.replicate(count)

        # An entry arrives: what it is, and does the walk go on below.

        reads, found = self.memory.reads, self.memory.data
        arrives, arrived = Signal(), found.payload.id[: self.bits]
        m.d.comb += arrives.eq(found.valid & (found.payload.id[self.bits :] == generation.value))
        ports = [memory.read_port(domain="comb") for memory in (requested, steps, places)]
        m.d.comb += [port.addr.eq(arrived) for port in ports]
        by, here, place = (port.data for port in ports)
        page, probe = page_of(by.request.linear), by.access.probe
        entry = data.View(EntryLayout(soft_dirty=config.soft_dirty), found.payload.value)
        m.submodules.check = check = EntryCheck(
            levels=config.levels, physical_bits=config.physical_bits, gigabyte_pages=config.gigabyte_pages
        )
        passable, on = Signal(), Signal()
        m.d.comb += [
            Value.cast(check.entry).eq(found.payload.value),
            check.at.eq(here.at),
            check.nxe.eq(self.i_context.control.nxe),
            passable.eq(entry.p & ~check.reserved & ~found.payload.error & ~check.leaf),
            on.eq(arrives & passable & (entry.a | probe)),
            self.o_passes.eq(arrives & passable & entry.a & ~probe & r.keeps.bit_select(arrived, 1)),
            self.o_upper.at.eq(here.at),
            self.o_upper.linear.eq(Cat(Const(0, x86.PAGE_SHIFT), page)),
            self.o_upper.frame.eq(self._frame(found.payload.value)),
            *(self.o_upper.rights[name].eq(value) for name, value in rights_below(here.rights, entry).items()),
        ]
        new, write_entry = Signal(entered), entries.write_port()
        m.d.comb += [
            new.step.eq(here),
            new.place.eq(place),
            new.found.entry.eq(found.payload.value),
            new.found.leaf.eq(check.leaf),
            new.found.reserved.eq(check.reserved),
            new.found.broken.eq(found.payload.error),
            new.found.user_key.eq(key_rights(self.i_context.pkru, entry)),
            new.found.supervisor_key.eq(key_rights(self.i_context.pkrs, entry)),
            write_entry.addr.eq(arrived),
            write_entry.data.eq(new),
            write_entry.en.eq(arrives),
        ]

        # What is read next: below the entry that arrives, in its cycle; else for the walk that waits longest.

        waits = data.View(next_read, Mux(to_go_on.r_rdy, to_go_on.r_data, to_begin.r_data))
        pops = Signal()
        reading, reads_it = Signal(next_read), Signal()
        below = {"at": here.at >> 1, "cached": here.cached}
        m.d.comb += [
            pops.eq((to_go_on.r_rdy | to_begin.r_rdy) & ~found.valid),
            to_go_on.r_en.eq(~found.valid),
            to_begin.r_en.eq(~found.valid & ~to_go_on.r_rdy),
            to_begin.w_data.eq(first),
            to_begin.w_en.eq(begins),
            reads_it.eq(on | (pops & waits.good)),
            reading.eq(waits),
        ]
        with m.If(found.valid):
            m.d.comb += [
                reading.whose.eq(arrived),
                reading.address.eq(slot(self._frame(found.payload.value), index_below(m, page, here.at))),
                *(reading.step[name].eq(value) for name, value in below.items()),
                *(reading.step.rights[name].eq(value) for name, value in rights_below(here.rights, entry).items()),
            ]
        write_step, write_place = steps.write_port(), places.write_port()
        out = data.View(read, offered.r_data)
        read_id = Cat(reading.whose, generation.value)
        m.d.comb += [
            write_step.addr.eq(reading.whose),
            write_step.data.eq(reading.step),
            # What of an entry that ends its walk is written here nobody reads.
            write_step.en.eq(arrives | pops),
            write_place.addr.eq(reading.whose),
            write_place.data.eq(reading.address),
            write_place.en.eq(arrives | pops),
            reads.valid.eq(offered.r_rdy | reads_it),
            reads.payload.address.eq(Mux(offered.r_rdy, out.address, reading.address)),
            reads.payload.id.eq(Mux(offered.r_rdy, out.id, read_id)),
            offered.w_data.eq(Cat(reading.address, read_id)),
            offered.w_en.eq(reads_it & (offered.r_rdy | ~reads.ready)),
            offered.r_en.eq(reads.ready),
        ]

        # Whose turn it is to be judged, in the order in which that came: the entry that ends a walk or needs a swap, or
        # what memory said of the swap. All that is known of that walk comes into a register before; an entry that
        # arrives while nobody waits and none is judged goes there with it.

        swapped = self.memory.swapped
        written, judging, fires = Signal(), r.judging, Signal()
        told = data.View(said, swaps_said.r_data)
        ports = [memory.read_port(domain="comb") for memory in (requested, entries)]
        m.d.comb += [port.addr.eq(turns.head.whose) for port in ports]
        of_turn, new_turn = [port.data for port in ports], Signal(turn)
        r.judged = Signal(known, name="judged")
        judged = r.judged.turn
        m.d.comb += [
            new_turn.whose.eq(arrived),
            written.eq(swapped.valid & (swapped.payload.id[self.bits :] == generation.value)),
            swaps_said.w_data.eq(Cat(swapped.payload.id[: self.bits], swapped.payload.done, swapped.payload.error)),
            turns.take.eq(turns.valid & ~judging),
        ]
        with m.If(found.valid):
            m.d.comb += [turns.push.eq(arrives & ~on & (turns.valid | judging)), turns.new.whose.eq(arrived)]
        with m.Elif(pops & ~waits.good):
            m.d.comb += [turns.push.eq(1), turns.new.whose.eq(waits.whose), turns.new.noncanonical.eq(1)]
        with m.Else():
            m.d.comb += [
                turns.push.eq(swaps_said.r_rdy),
                swaps_said.r_en.eq(1),
                turns.new.eq(Cat(told.whose, Const(0, 1), Const(1, 1), told.done, told.error)),
            ]
        with m.If(judging):
            m.d.sync += judging.eq(~fires)
        with m.Else():
            m.d.sync += judging.eq(turns.valid | (arrives & ~on))
            with m.If(turns.valid | found.valid):
                m.d.sync += Value.cast(r.judged).eq(Mux(turns.valid, Cat(turns.head, *of_turn), Cat(new_turn, by, new)))

        # It is judged: conditional write, one more read, or answer.

        at_once, done, error = Signal(), Signal(), Signal()
        answer, update, known = self._judge(m, r.judged, error)
        m.d.comb += [
            # What memory says of the swap of the walk that is in the register still.
            # A late answer to a read of before a reset may stand in that register: it awaits no swap.
            at_once.eq(written & judged.after & (judged.whose == swapped.payload.id[: self.bits])),
            done.eq(Mux(judging, judged.done, swapped.payload.done)),
            error.eq(judged.after & Mux(judging, judged.error, swapped.payload.error)),
            swaps_said.w_en.eq(written & ~(at_once & fires)),
        ]
        stale = ~known.access.probe & ~judged.after & update.missing
        restarts = ~judged.after & (answer.outcome == x86.Outcome.PAGE_FAULT) & known.step.cached
        said_well = judged.after & ~error
        swaps_now, reads_again, goes_below, answers = Signal(), Signal(), Signal(), Signal()
        swaps, responses = self.memory.swaps, self.requester.responses
        m.d.comb += [
            swaps_now.eq((answer.outcome == x86.Outcome.OK) & stale),
            reads_again.eq(said_well & ~done),
            goes_below.eq(said_well & done & ~known.found.leaf),
            answers.eq(~(swaps_now | restarts | reads_again | goes_below)),
            self.o_judges.eq(judging | at_once),
            swaps.valid.eq(judging & swaps_now),
            swaps.payload.address.eq(known.place),
            swaps.payload.old.eq(known.found.entry),
            swaps.payload.new.eq(update.new),
            swaps.payload.id.eq(Cat(judged.whose, generation.value)),
            responses.valid.eq(self.o_judges & answers),
            responses.payload.eq(answer.response),
        ]
        further = Signal(next_read)
        m.d.comb += [further.whose.eq(judged.whose), further.good.eq(1)]
        with m.If(judged.after):
            m.d.comb += [
                further.address.eq(known.place),
                further.step.eq(known.step),
            ]
            with m.If(done):
                own = page_of(known.request.linear)
                rights = rights_below(known.step.rights, known.entry)
                m.d.comb += [
                    further.address.eq(slot(self._frame(known.found.entry), index_below(m, own, known.step.at))),
                    further.step.at.eq(known.step.at >> 1),
                    *(further.step.rights[name].eq(value) for name, value in rights.items()),
                ]
        with m.Else():
            la57 = self.i_context.control.la57 if config.levels == x86.LEVELS_5 else Const(0)
            top = {n: index_of(known.request.linear, n) for n in (x86.LEVELS_4, x86.LEVELS_5)}
            m.d.comb += [
                further.address.eq(slot(self.i_context.root, Mux(la57, top[x86.LEVELS_5], top[x86.LEVELS_4]))),
                further.step.at.eq(Mux(la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))),
                Cat(further.step.rights.rw, further.step.rights.us, further.step.rights.xd).eq(0b011),
            ]
        reads_on = restarts | reads_again | goes_below
        with m.If(answers):
            m.d.comb += fires.eq(responses.ready)
        with m.Elif(swaps_now):
            m.d.comb += fires.eq(swaps.ready)
        with m.Else():
            m.d.comb += fires.eq(1)
        m.d.comb += [to_go_on.w_data.eq(further), to_go_on.w_en.eq(self.o_judges & reads_on)]
        with m.If(swaps.valid & swaps.ready):
            m.d.sync += judged.after.eq(1)

        # Which walkers are free, and what they will leave.

        ended, one = Signal(count), Const(1, count)
        m.d.comb += ended.eq(Mux(responses.valid & responses.ready, (one << judged.whose)[:count], 0))
        keeps = (~self.i_stale & ~self.i_access.probe).replicate(count)
        m.d.sync += [
            self.o_walking.eq((self.o_walking | begun) & ~ended),
            self.o_room.eq(~(self.o_walking | begun).all()),
            self.o_ended.eq(self.o_ended ^ ended),
            r.keeps.eq(Mux(self.i_overtakes, 0, r.keeps & ~begun) | (begun & keeps)),
        ]
        for number, known_page in enumerate(r.pages):
            with m.If(free[number]):
                m.d.sync += known_page.eq(page_of(linear))
        beside = self.i_page == page_of(linear)
        with m.If(self.i_look):
            same = (Mux(begun[n], beside, self.i_page == known_page) for n, known_page in enumerate(r.pages))
            m.d.sync += r.matches.eq(Cat(*same))
        m.d.comb += self.o_same.eq(r.matches & self.o_walking & r.keeps)

        # What is told of it.

        event = self.o_written.payload
        m.d.comb += [
            self.o_translation.eq(answer.translation),
            self.o_code.eq(answer.code),
            self.o_linear.eq(known.request.linear),
            self.o_store.eq(known.access.store),
            self.o_probe.eq(known.access.probe),
            self.o_epoch.eq(known.epoch),
            self.o_kept.eq(r.keeps.bit_select(judged.whose, 1)),
            self.o_written.valid.eq(self.o_judges & judged.after & fires),
            event.linear.eq(known.request.linear),
            event.tag.eq(known.request.tag),
            event.level.eq(answer.level),
            event.address.eq(known.place),
            event.old.eq(known.found.entry),
            event.new.eq(update.new),
            event.done.eq(done & ~error),
            event.error.eq(error),
        ]
        if config.trace:
            m.d.comb += [
                self.o_walked.valid.eq(responses.valid & responses.ready),
                self.o_walked.payload.linear.eq(known.request.linear),
                *(self.o_walked.payload[name].eq(responses.payload[name]) for name, _ in answer.response.shape()),
                self.o_walker.eq(judged.whose),
            ]
        return m

    def _frame(self, entry: Value) -> Value:
        """The frame number in an entry."""
        return entry[x86.FRAME_LOW : self.config.physical_bits]

    def _judge(self, m: Module, judged: data.View, error: Value) -> tuple[WalkAnswer, EntryUpdate, SimpleNamespace]:
        """The nets that judge the walk in the register, and all that is known of it; `error`: its swap was refused."""
        config = self.config
        asked, (step, place, found) = judged.asked, (judged.entered[name] for name in ("step", "place", "found"))
        entry = data.View(EntryLayout(soft_dirty=config.soft_dirty), found.entry)
        m.submodules.rights = rights = AccessRights(soft_dirty=config.soft_dirty)
        m.submodules.update = update = EntryUpdate(soft_dirty=config.soft_dirty)
        m.submodules.answer = answer = WalkAnswer(
            levels=config.levels,
            physical_bits=config.physical_bits,
            tag_bits=config.tag_bits,
            soft_dirty=config.soft_dirty,
        )
        context = self.i_context
        m.d.comb += [
            rights.access.eq(asked.access),
            rights.upper_rw.eq(step.rights.rw),
            rights.leaf_rw.eq(entry.rw),
            rights.us.eq(step.rights.us & entry.us),
            rights.xd.eq(step.rights.xd | entry.xd),
            rights.user_key.eq(found.user_key),
            rights.supervisor_key.eq(found.supervisor_key),
            Value.cast(update.entry).eq(found.entry),
            update.leaf.eq(found.leaf),
            update.store.eq(asked.access.store),
            answer.request.eq(asked.request),
            answer.access.eq(asked.access),
            Value.cast(answer.entry).eq(found.entry),
            answer.at.eq(step.at),
            answer.upper.eq(step.rights),
            answer.leaf.eq(found.leaf),
            answer.reserved.eq(found.reserved),
            answer.noncanonical.eq(judged.turn.noncanonical),
            answer.broken.eq(found.broken | error),
            answer.new.eq(update.new),
            answer.address.eq(place),
            answer.denied.eq(rights.denied),
            answer.key_denied.eq(rights.key_denied),
            answer.fetch_bit.eq(context.control.nxe | context.control.smep),
        ]
        if config.soft_dirty:
            m.d.comb += [
                rights.mendable.eq(mendable(context.track, entry)),
                update.track.eq(context.track),
                update.mend.eq(rights.mend),
                update.saved_dirty.eq(context.saved_dirty),
            ]
        of_request = {"request": asked.request, "access": asked.access, "epoch": asked.epoch}
        known = SimpleNamespace(**of_request, step=step, place=place, found=found, entry=entry)
        return answer, update, known
