"""Does the memory behind a port have an exclusive monitor that serves? Asked of it, on two words that nobody uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.axi import AxiSignature, Burst, Response
from ptewalk.rtl.bus.slots import CACHE, WORD

__all__ = ["CHECKS", "LINE_CHECKS", "SelfTest", "SelfTestLayout", "scratch_bytes"]

CHECKS: Final = {
    "pair": "An exclusive read and an exclusive write succeed.",
    "spent": "A second exclusive write fails.",
    "write": "A plain write of another ID ends a reservation.",
    "one_byte": "So does one of a single byte inside the word.",
    "other": "Of two IDs that reserved the word one at most writes it.",
    "two": "Two IDs hold a reservation at a time, of neighbouring words.",
}
"""What is tried, in this order. Without the last a memory serves one ID at a time."""
LINE_CHECKS: Final = {
    "line": "An exclusive read and an exclusive write of a whole line succeed.",
    "line_write": "A plain write of another ID to any word of it ends a line's reservation.",
    "line_other": "So does an exclusive one.",
}
"""Likewise, where lines are swapped as a whole."""
_BYTE: Final = 5
_IDS_BITS: Final = 7


def scratch_bytes(ids: int, line_bytes: int) -> int:
    """Bytes that are lost, and aligned: a line, or a word, for each ID, two words at least; a power of two."""
    return 1 << (max(16, ids * line_bytes) - 1).bit_length()


class SelfTestLayout(data.StructLayout):
    """What was found: `ran`, a bit for each check, and `error`, the bus refused an access; `ids` that hold at once."""

    def __init__(self) -> None:
        names = ("ran", *CHECKS, "error", *LINE_CHECKS)
        super().__init__({**dict.fromkeys(names, unsigned(1)), "ids": unsigned(_IDS_BITS)})


class _Wants(Enum):
    """What RRESP or BRESP must be."""

    EXOKAY = 0
    OKAY = 1
    ANY = 2
    ONE = 3
    """EXOKAY, unless the write before it was answered so."""


@dataclass(frozen=True)
class _Step:
    """An access: a read, or a write of `value`; `found` is what a read must find. `id` is the place of one."""

    check: str
    id: int
    lock: bool
    wants: _Wants
    value: int | None = None
    found: int | None = None
    word: int = 0
    byte: bool = False
    line: bool = False


def _pattern(number: int) -> int:
    """A word that differs from the others in each byte."""
    return number * 0x1111_1111_1111_1111


def _program() -> tuple[_Step, ...]:
    exokay, okay, every = _Wants.EXOKAY, _Wants.OKAY, _Wants.ANY
    mixed = _pattern(4) & ~(0xFF << 8 * _BYTE) | _pattern(6) & 0xFF << 8 * _BYTE
    return (
        _Step("pair", 0, False, okay, value=_pattern(1)),
        _Step("pair", 0, True, exokay, found=_pattern(1)),
        _Step("pair", 0, True, exokay, value=_pattern(2)),
        _Step("pair", 0, False, okay, found=_pattern(2)),
        _Step("spent", 0, True, okay, value=_pattern(3)),
        _Step("spent", 0, False, okay, found=_pattern(2)),
        _Step("write", 0, True, exokay),
        _Step("write", 1, False, okay, value=_pattern(4)),
        _Step("write", 0, True, okay, value=_pattern(5)),
        _Step("write", 0, False, okay, found=_pattern(4)),
        _Step("one_byte", 0, True, exokay),
        _Step("one_byte", 1, False, okay, value=_pattern(6), byte=True),
        _Step("one_byte", 0, True, okay, value=_pattern(7)),
        _Step("one_byte", 0, False, okay, found=mixed),
        _Step("other", 0, True, every),
        _Step("other", 1, True, every),
        _Step("other", 1, True, every, value=_pattern(8)),
        _Step("other", 0, True, _Wants.ONE, value=_pattern(9)),
        _Step("two", 0, True, exokay),
        _Step("two", 1, True, exokay, word=1),
        _Step("two", 0, True, exokay, value=_pattern(10)),
        _Step("two", 1, True, exokay, value=_pattern(11), word=1),
        _Step("two", 0, False, okay, found=_pattern(10)),
        _Step("two", 1, False, okay, found=_pattern(11), word=1),
    )


def _of_lines(words: int) -> Iterator[_Step]:
    """Lines of ID 1, and words of ID 0 in them."""
    exokay, okay, every = _Wants.EXOKAY, _Wants.OKAY, _Wants.ANY
    yield _Step("line", 1, True, exokay, line=True)
    yield _Step("line", 1, True, exokay, value=_pattern(12), line=True)
    for word in range(words):
        yield _Step("line", 0, False, okay, found=_pattern(12), word=word)
    for word in range(words):
        yield _Step("line_write", 1, True, exokay, line=True)
        yield _Step("line_write", 0, False, okay, value=_pattern(13), word=word)
        yield _Step("line_write", 1, True, okay, value=_pattern(14), line=True)
        yield _Step("line_write", 0, False, okay, found=_pattern(13), word=word)
    for word in (0, words - 1):
        yield _Step("line_other", 1, True, every, line=True)
        yield _Step("line_other", 0, True, every, word=word)
        yield _Step("line_other", 0, True, every, value=_pattern(8), word=word)
        yield _Step("line_other", 1, True, _Wants.ONE, value=_pattern(9), line=True)


def _of_ids(ids: int, line_words: int) -> Iterator[_Step]:
    """Each of them reserves what it would swap, and then swaps it."""
    line = line_words > 1
    for number in range(ids):
        yield _Step("ids", number, True, _Wants.ANY, word=number * line_words, line=line and number > 0)
    for number in range(ids):
        yield _Step("ids", number, True, _Wants.ANY, _pattern(15), word=number * line_words, line=line and number > 0)


class _State(IntEnum):
    """What goes on."""

    IDLE = 0
    SEND = 1
    ANSWER = 2
    END = 3


class SelfTest(Component):
    """Stands on an AXI4 interface, is no more than wires to it, and on `start` tries the memory behind.

    Parameters
    ----------
    physical_bits, data_bits : int
        As in `ExclusivePortConfig`.
    id_bits : int
        Of the interface.
    prot : int
        AxPROT of its accesses.
    ids : tuple of int
        Those that reserve something; with lines the first one words, the others lines. Where there is one, 1 is used
        too.
    line_bytes : int
        Of lines that are reserved as a whole; 8 (default): words alone are.

    Members
    -------
    s_axi : In(AxiSignature), m_axi : Out(AxiSignature)
    start : In(1)
        Begins, and stays until `done`. Nothing is in flight above, and nothing is offered until then.
    address : In(physical_bits)
        Of `scratch_bytes` bytes, which are lost; aligned.
    done : Out(1)
        For a cycle; `result` counts from it on.
    busy : Out(1)
        It has begun, and is not done.
    result : Out(SelfTestLayout)
    """

    def __init__(
        self, *, physical_bits: int, data_bits: int, id_bits: int, prot: int, ids: tuple[int, ...], line_bytes: int = 8
    ) -> None:
        words = line_bytes // 8
        self._data_bits, self._prot, self._beats = data_bits, prot, line_bytes * 8 // data_bits
        self._ids, self._low = (
            (*ids, 1) if len(ids) == 1 else ids,
            (scratch_bytes(len(ids), line_bytes) - 1).bit_length(),
        )
        self._program = (*_program(), *(_of_lines(words) if words > 1 else ()), *_of_ids(len(ids), words))
        axi = AxiSignature(address_bits=physical_bits, data_bits=data_bits, id_bits=id_bits)
        super().__init__(
            {
                "s_axi": In(axi),
                "m_axi": Out(axi),
                "start": In(1),
                "address": In(unsigned(physical_bits)),
                "done": Out(1),
                "busy": Out(1),
                "result": Out(SelfTestLayout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, result = self.m_axi, self.result
        connect(m, flipped(self.s_axi), flipped(axi))
        program, checks = self._program, dict.fromkeys(one.check for one in self._program if one.check != "ids")
        state, step = Signal(_State), Signal(range(len(program)))
        sent = {name: Signal(name=f"{name}_sent") for name in ("aw", "w", "ar")}
        reads, good, first, wrong = Signal(), Signal(), Signal(), Signal()
        line, beat, bad = Signal(), Signal(range(max(2, self._beats))), Signal()
        response = Mux(reads, axi.r.payload.resp, axi.b.payload.resp)
        comes = (state == _State.ANSWER) & Mux(reads, axi.r.valid, axi.b.valid)
        answered = comes & (~reads | axi.r.payload.last)
        with m.If(state != _State.IDLE):
            self._alone(m, {name: (state == _State.SEND) & ~flag for name, flag in sent.items()}, reads)
        last = ~line | (beat == self._beats - 1)
        with m.Switch(step):
            for number, one in enumerate(program):
                with m.Case(number):
                    m.d.comb += [reads.eq(one.value is None), line.eq(one.line)]
                    with m.If(state != _State.IDLE):
                        self._offer(m, one, last)
                    self._judge(m, one, good, response, first)
        m.d.comb += self.busy.eq(state != _State.IDLE)
        for name, flag in sent.items():
            goes = getattr(axi, name).valid & getattr(axi, name).ready
            with m.If(goes & (last if name == "w" else 1)):
                m.d.sync += flag.eq(1)
            if name == "w":
                with m.If(goes):
                    m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        # Each beat of a read counts.
        with m.If(comes):
            m.d.sync += [wrong.eq(~answered & (wrong | ~good)), bad.eq(~answered & (bad | response[1]))]
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += [step.eq(0), beat.eq(0), *(flag.eq(0) for flag in sent.values())]
                with m.If(self.start):
                    m.d.sync += [state.eq(_State.SEND), result.ran.eq(0), result.error.eq(0), result.ids.eq(0)]
                    m.d.sync += [result[name].eq(1) for name in checks]
            with m.Case(_State.SEND):
                gone = {name: flag | getattr(axi, name).ready for name, flag in sent.items()}
                with m.If(Mux(reads, gone["ar"], gone["aw"] & (sent["w"] | (axi.w.ready & last)))):
                    m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.ANSWER):
                with m.If(answered):
                    m.d.sync += [step.eq(step + 1), state.eq(_State.SEND), *(flag.eq(0) for flag in sent.values())]
                    m.d.sync += first.eq(response == Response.EXOKAY)
                    with m.If(step == len(program) - 1):
                        m.d.sync += state.eq(_State.END)
                    with m.Switch(step):
                        for number, one in enumerate(program):
                            with m.Case(number):
                                if one.check != "ids":
                                    with m.If(wrong | ~good):
                                        m.d.sync += result[one.check].eq(0)
                                elif one.value is not None:
                                    m.d.sync += result.ids.eq(result.ids + (response == Response.EXOKAY))
                    with m.If(bad | response[1]):
                        m.d.sync += [state.eq(_State.END), result.error.eq(1), *(result[n].eq(0) for n in checks)]
                        m.d.sync += result.ids.eq(0)
            with m.Case(_State.END):
                m.d.comb += self.done.eq(1)
                m.d.sync += [state.eq(_State.IDLE), result.ran.eq(1)]
        return m

    def _alone(self, m: Module, offers: dict[str, Any], reads: Signal) -> None:
        """Nothing passes; this offers what is to be sent, and takes each answer."""
        above, axi = self.s_axi, self.m_axi
        m.d.comb += [
            *(
                above.aw.ready.eq(0),
                above.w.ready.eq(0),
                above.ar.ready.eq(0),
                above.r.valid.eq(0),
                above.b.valid.eq(0),
            ),
            *(axi.aw.valid.eq(offers["aw"] & ~reads), axi.w.valid.eq(offers["w"] & ~reads)),
            *(axi.ar.valid.eq(offers["ar"] & reads), axi.r.ready.eq(1), axi.b.ready.eq(1)),
        ]

    def _offer(self, m: Module, step: _Step, last: Value) -> None:
        """The payload of a step's access."""
        channel = (self.m_axi.ar if step.value is None else self.m_axi.aw).payload
        lanes = self._data_bits // 64
        byte = _BYTE if step.byte else 0
        size = (self._data_bits // 8 - 1).bit_length() if step.line else (0 if step.byte else WORD)
        m.d.comb += [
            channel.id.eq(self._ids[step.id]),
            channel.addr.eq(Cat(Const(8 * step.word + byte, self._low), self.address[self._low :])),
            channel.len.eq(self._beats - 1 if step.line else 0),
            *(channel.size.eq(size), channel.burst.eq(Burst.INCR), channel.lock.eq(step.lock)),
            *(channel.cache.eq(CACHE), channel.prot.eq(self._prot), channel.qos.eq(0)),
        ]
        if step.value is not None:
            w = self.m_axi.w.payload
            strobes = 1 << byte if step.byte else 0xFF
            every = Const(-1, lanes * 8)
            m.d.comb += [
                *(w.data.eq(Const(step.value, 64).replicate(lanes)), w.last.eq(last)),
                w.strb.eq(every if step.line else Const(strobes, lanes * 8) << (self._lane(step) << 3)),
            ]

    def _lane(self, step: _Step) -> Value:
        """Of a word."""
        bits = (self._data_bits // 64 - 1).bit_length()
        return Cat(Const(8 * step.word, self._low), self.address[self._low :])[3 : 3 + bits]

    def _judge(self, m: Module, step: _Step, good: Signal, response: Any, first: Signal) -> None:
        """Whether a step was answered as it must be."""
        exclusive = response == Response.EXOKAY
        wanted = {
            _Wants.EXOKAY: exclusive,
            _Wants.OKAY: ~exclusive,
            _Wants.ANY: Const(1),
            _Wants.ONE: ~(exclusive & first),
        }[step.wants]
        m.d.comb += good.eq(wanted)
        if step.found is not None:
            m.d.comb += good.eq(wanted & (self.m_axi.r.payload.data.word_select(self._lane(step), 64) == step.found))
