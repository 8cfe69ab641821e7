"""The command queue: contexts, invalidations, requests and accesses to memory, one after the other."""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Member, Out

from ptewalk.model import x86
from ptewalk.rtl.interfaces import ContextSignature, RequesterSignature
from ptewalk.rtl.layouts import CompletionLayout, ContextLayout, InvalidationLayout, RequestLayout, ResponseLayout
from ptewalk.rtl.registers.map import COMMAND_BITS, Command
from ptewalk.rtl.registers.share import WordLayout, WordSignature

__all__ = ["AskedLayout", "Commands", "StagedLayout"]


class AskedLayout(data.StructLayout):
    """A request, and whether a store that is allowed counts as visible at once."""

    def __init__(self, tag_bits: int) -> None:
        super().__init__({"request": RequestLayout(tag_bits), "retire": 1})


class StagedLayout(data.StructLayout):
    """All that software has staged, for each kind of command.

    Members
    -------
    context : ContextLayout
    invalidation : InvalidationLayout
    request : AskedLayout
    word : WordLayout
    """

    def __init__(self, physical_bits: int, tag_bits: int, *, soft_dirty: bool) -> None:
        super().__init__(
            {
                "context": ContextLayout(physical_bits, soft_dirty=soft_dirty, pcids=True),
                "invalidation": InvalidationLayout(),
                "request": AskedLayout(tag_bits),
                "word": WordLayout(physical_bits),
            }
        )


class State(IntEnum):
    """What is done with the command at the head of the queue."""

    OFFER = 0
    """It is offered to who carries it out."""
    DRAIN = 1
    """What was asked before is waited for, and nothing is taken meanwhile."""
    COMPLETE = 2
    """An invalidation waits until it is complete."""
    ANSWER = 3
    """A request waits for its answer."""
    END = 4
    """It has ended, and leaves the queue."""


_BY_ENGINE: Final = {Command.TABLE: "table", Command.RING: "ring"}
"""What the table engine carries out, to the name of its members."""


def _engines(name: str) -> Iterator[tuple[str, Member]]:
    yield name, Out(1)
    yield f"{name}_over", In(1)
    yield f"{name}_failed", In(1)


class Commands(Component):
    """Takes what is staged as a command, and carries commands out in their order.

    Parameters
    ----------
    physical_bits, tag_bits, soft_dirty
        As in `WalkerConfig`.
    depth : int
        Commands that may wait, the one in work included.
    read_grants : bool
        As in `CachingMmuConfig`: a read that is allowed retires at once.
    tables : bool
        True: there is a table engine; default False.

    Members
    -------
    kind : In(4)
        `Command`; puts what is staged into the queue where there is room. 0: nothing.
    staged : In(StagedLayout)
    room : Out(5)
        Places free.
    contexts : Out(ContextSignature, with pcids), invalidations : Out(stream of InvalidationLayout)
    completions : In(stream of CompletionLayout, always ready)
        The MMU's: an invalidation that waited is complete.
    requester : Out(RequesterSignature, with retires)
        One request at a time, of tag 0.
    words : Out(WordSignature)
    table : Out(1), table_over : In(1), table_failed : In(1)
        The table engine's command is offered; it has ended; the bus refused something of it. Only with `tables`.
    ring : Out(1), ring_over : In(1), ring_failed : In(1)
        The same of what descriptors say.
    drain : Out(1), drained : In(1)
        As the supervisor's.
    retire : In(1)
        The store that was granted is visible.
    retiring : In(1)
        The MMU has not been told yet of a store that is: no request is made.
    granted : Out(1)
        A store was allowed and is not retired.
    busy : Out(1)
        A command is waiting or in work.
    ended : Out(1)
        One ends in this cycle.
    failed : Out(1)
        It ends in a bus error.
    answer : Out(ResponseLayout), value : Out(64), memory_done, memory_error : Out(1)
        Of the last request, and of the last access to memory.
    """

    def __init__(
        self,
        *,
        physical_bits: int,
        tag_bits: int,
        soft_dirty: bool,
        depth: int,
        read_grants: bool = False,
        tables: bool = False,
    ) -> None:
        self._depth, self._read_grants, self._tables = depth, read_grants, tables
        self._staged = StagedLayout(physical_bits, tag_bits, soft_dirty=soft_dirty)
        requester = RequesterSignature(physical_bits=physical_bits, tag_bits=tag_bits, retires=True)
        super().__init__(
            {
                "kind": In(unsigned(COMMAND_BITS)),
                "staged": In(self._staged),
                "room": Out(unsigned(5)),
                "contexts": Out(ContextSignature(physical_bits=physical_bits, soft_dirty=soft_dirty, pcids=True)),
                "invalidations": Out(stream.Signature(InvalidationLayout())),
                "completions": In(stream.Signature(CompletionLayout(), always_ready=True)),
                "requester": Out(requester),
                "words": Out(WordSignature(physical_bits)),
                "drain": Out(1),
                "drained": In(1),
                "retire": In(1),
                "retiring": In(1),
                "granted": Out(1),
                "busy": Out(1),
                "ended": Out(1),
                "failed": Out(1),
                "answer": Out(ResponseLayout(physical_bits, tag_bits)),
                "value": Out(unsigned(64)),
                "memory_done": Out(1),
                "memory_error": Out(1),
                **({name: member for one in _BY_ENGINE.values() for name, member in _engines(one)} if tables else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # An entry is what its kind needs, at the lowest bits.
        parts = {
            Command.APPLY: self.staged.context,
            Command.INVALIDATE: self.staged.invalidation,
            Command.REQUEST: self.staged.request,
            Command.READ: self.staged.word,
            Command.SWAP: self.staged.word,
            Command.SELFTEST: self.staged.word,
        }
        width = max(part.shape().size for part in parts.values())
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=COMMAND_BITS + width, depth=self._depth)
        body = Signal(width)
        with m.Switch(self.kind):
            for kind, part in parts.items():
                with m.Case(kind):
                    m.d.comb += [body.eq(part), queue.w_en.eq(1)]
            with m.Case(Command.DRAIN, *(_BY_ENGINE if self._tables else [])):
                m.d.comb += queue.w_en.eq(1)
        m.d.comb += [
            queue.w_data.eq(Cat(self.kind, body)),
            self.room.eq(self._depth - queue.level),
            self.busy.eq(queue.level != 0),
        ]
        kind, staged = queue.r_data[:COMMAND_BITS], queue.r_data[COMMAND_BITS:]
        head = {command: part.shape()(staged[: part.shape().size]) for command, part in parts.items()}

        state = Signal(State)
        offers = Signal()
        retires = Signal()  # the grant that is outstanding
        at_once = Signal()  # the one of the last cycle
        m.d.comb += [
            offers.eq(queue.r_rdy & (state == State.OFFER)),
            self.contexts.payload.eq(head[Command.APPLY]),
            self.invalidations.payload.eq(head[Command.INVALIDATE]),
            self.requester.requests.payload.eq(head[Command.REQUEST].request),
            self.words.asked.payload.eq(head[Command.SWAP]),
            self.words.asked.payload.swap.eq(kind == Command.SWAP),
            self.words.asked.payload.test.eq(kind == Command.SELFTEST),
            self.drain.eq(state == State.DRAIN),
            self.ended.eq(state == State.END),
            queue.r_en.eq(state == State.END),
            self.requester.responses.ready.eq(state == State.ANSWER),
            self.requester.retired.payload.tag.eq(0),
            retires.eq(self.retire & self.granted),
            self.requester.retired.valid.eq(retires),
        ]
        failed = Signal()
        m.d.comb += self.failed.eq(self.ended & failed)
        with m.If(self.ended):
            m.d.sync += [state.eq(State.OFFER), failed.eq(0)]
        with m.If(offers):
            with m.Switch(kind):
                with m.Case(Command.APPLY):
                    m.d.comb += self.contexts.valid.eq(1)
                    with m.If(self.contexts.ready):
                        m.d.sync += state.eq(State.END)
                with m.Case(Command.INVALIDATE):
                    m.d.comb += self.invalidations.valid.eq(1)
                    with m.If(self.invalidations.ready):
                        waits = head[Command.INVALIDATE].wait != x86.Wait.NONE
                        m.d.sync += state.eq(Mux(waits, State.COMPLETE, State.END))
                with m.Case(Command.REQUEST):
                    free = ~(self.granted | self.retiring | at_once)
                    m.d.comb += self.requester.requests.valid.eq(free)
                    with m.If(self.requester.requests.ready & free):
                        m.d.sync += state.eq(State.ANSWER)
                with m.Case(Command.DRAIN):
                    m.d.sync += state.eq(State.DRAIN)
                for command, name in _BY_ENGINE.items() if self._tables else ():
                    with m.Case(command):
                        m.d.comb += getattr(self, name).eq(1)
                        with m.If(getattr(self, f"{name}_over")):
                            m.d.sync += [failed.eq(getattr(self, f"{name}_failed")), state.eq(State.END)]
                with m.Default():  # READ, SWAP and SELFTEST
                    m.d.comb += self.words.asked.valid.eq(1)
                    with m.If(self.words.answered.valid):
                        found = self.words.answered.payload
                        m.d.sync += [self.memory_done.eq(found.done), self.memory_error.eq(found.error)]
                        m.d.sync += [failed.eq(found.error), state.eq(State.END)]
                        with m.If(kind == Command.READ):
                            m.d.sync += self.value.eq(found.value)
        completes = (state == State.COMPLETE) & self.completions.valid
        with m.If(completes | (self.drain & self.drained)):
            m.d.sync += state.eq(State.END)
        self._answer(m, head[Command.REQUEST], state, failed, retires, at_once)
        return m

    def _answer(
        self, m: Module, asked: data.View, state: Signal, failed: Signal, retires: Signal, at_once: Signal
    ) -> None:
        """The answer to a request, and its grant."""
        responses = self.requester.responses
        access, outcome = asked.request.access, responses.payload.outcome
        store = (access == x86.Access.WRITE) | (access == x86.Access.RMW)
        with m.If(retires):
            m.d.sync += self.granted.eq(0)
        with m.If((state == State.ANSWER) & responses.valid):
            allowed = outcome == x86.Outcome.OK
            grants = store & allowed
            reads = allowed & ~store & (access != x86.Access.PROBE) if self._read_grants else Const(0)
            m.d.sync += [
                self.answer.eq(responses.payload),
                failed.eq(outcome == x86.Outcome.BUS_ERROR),
                self.granted.eq(grants & ~asked.retire),
                at_once.eq((grants & asked.retire) | reads),
                state.eq(State.END),
            ]
        with m.If(at_once):
            m.d.comb += self.requester.retired.valid.eq(1)
            m.d.sync += at_once.eq(0)
