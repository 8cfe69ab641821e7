"""Does the memory behind a port have an exclusive monitor that serves? Asked of it, on two words that nobody uses."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.axi import AxiSignature, Burst, Response
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.slots import CACHE, WORD

__all__ = ["CHECKS", "SelfTest", "SelfTestLayout"]

CHECKS: Final = {
    "pair": "An exclusive read and an exclusive write succeed.",
    "spent": "A second exclusive write fails.",
    "write": "A plain write of another ID ends a reservation.",
    "one_byte": "So does one of a single byte inside the word.",
    "other": "Of two IDs that reserved the word one at most writes it.",
    "two": "Two IDs hold a reservation at a time, of neighbouring words.",
}
"""What is tried, in this order. Without the last a memory serves one ID at a time."""
_BYTE: Final = 5


class SelfTestLayout(data.StructLayout):
    """What was found: `ran`, a bit for each of `CHECKS`, and `error`, the bus refused an access."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("ran", *CHECKS, "error"), 1))


class _Wants(Enum):
    """What RRESP or BRESP must be."""

    EXOKAY = 0
    OKAY = 1
    ANY = 2
    ONE = 3
    """EXOKAY, unless the write before it was answered so."""


@dataclass(frozen=True)
class _Step:
    """An access: a read, or a write of `value`; `found` is what a read must find."""

    check: str
    id: int
    lock: bool
    wants: _Wants
    value: int | None = None
    found: int | None = None
    second: bool = False
    byte: bool = False


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
        _Step("two", 1, True, exokay, second=True),
        _Step("two", 0, True, exokay, value=_pattern(10)),
        _Step("two", 1, True, exokay, value=_pattern(11), second=True),
        _Step("two", 0, False, okay, found=_pattern(10)),
        _Step("two", 1, False, okay, found=_pattern(11), second=True),
    )


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
    config : ExclusivePortConfig
        Of the port above; IDs 0 and 1 are used.

    Members
    -------
    s_axi : In(AxiSignature), m_axi : Out(AxiSignature)
    start : In(1)
        Begins, and stays until `done`. Nothing is in flight above, and nothing is offered until then.
    address : In(physical_bits)
        Of 16 bytes, which are lost; aligned.
    done : Out(1)
        For a cycle; `result` counts from it on.
    result : Out(SelfTestLayout)
    """

    def __init__(self, config: ExclusivePortConfig) -> None:
        self.config = config
        axi = AxiSignature(address_bits=config.physical_bits, data_bits=config.data_bits, id_bits=config.id_bits)
        super().__init__(
            {
                "s_axi": In(axi),
                "m_axi": Out(axi),
                "start": In(1),
                "address": In(unsigned(config.physical_bits)),
                "done": Out(1),
                "result": Out(SelfTestLayout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, result = self.m_axi, self.result
        connect(m, flipped(self.s_axi), flipped(axi))
        program = _program()
        state, step = Signal(_State), Signal(range(len(program)))
        sent = {name: Signal(name=f"{name}_sent") for name in ("aw", "w", "ar")}
        reads, good, first = Signal(), Signal(), Signal()
        response = Mux(reads, axi.r.payload.resp, axi.b.payload.resp)
        answered = (state == _State.ANSWER) & Mux(reads, axi.r.valid, axi.b.valid)
        with m.If(state != _State.IDLE):
            self._alone(m, {name: (state == _State.SEND) & ~flag for name, flag in sent.items()}, reads)
        with m.Switch(step):
            for number, one in enumerate(program):
                with m.Case(number):
                    m.d.comb += reads.eq(one.value is None)
                    with m.If(state != _State.IDLE):
                        self._offer(m, one)
                    self._judge(m, one, good, response, first)
        for name, flag in sent.items():
            with m.If(getattr(axi, name).valid & getattr(axi, name).ready):
                m.d.sync += flag.eq(1)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.sync += [step.eq(0), *(flag.eq(0) for flag in sent.values())]
                with m.If(self.start):
                    m.d.sync += [state.eq(_State.SEND), result.ran.eq(0), result.error.eq(0)]
                    m.d.sync += [result[name].eq(1) for name in CHECKS]
            with m.Case(_State.SEND):
                gone = {name: flag | getattr(axi, name).ready for name, flag in sent.items()}
                with m.If(Mux(reads, gone["ar"], gone["aw"] & gone["w"])):
                    m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.ANSWER):
                with m.If(answered):
                    m.d.sync += [step.eq(step + 1), state.eq(_State.SEND), *(flag.eq(0) for flag in sent.values())]
                    m.d.sync += first.eq(response == Response.EXOKAY)
                    with m.If(step == len(program) - 1):
                        m.d.sync += state.eq(_State.END)
                    with m.If(response[1]):
                        m.d.sync += [state.eq(_State.END), result.error.eq(1), *(result[n].eq(0) for n in CHECKS)]
                    with m.Elif(~good):
                        with m.Switch(step):
                            for number, one in enumerate(program):
                                with m.Case(number):
                                    m.d.sync += result[one.check].eq(0)
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

    def _offer(self, m: Module, step: _Step) -> None:
        """The payload of a step's access."""
        channel = (self.m_axi.ar if step.value is None else self.m_axi.aw).payload
        lanes = self.config.data_bits // 64
        byte = _BYTE if step.byte else 0
        place = Cat(Const(byte, 3), Const(int(step.second), 1))
        m.d.comb += [
            *(channel.id.eq(step.id), channel.addr.eq(Cat(place, self.address[4:])), channel.len.eq(0)),
            *(channel.size.eq(0 if step.byte else WORD), channel.burst.eq(Burst.INCR), channel.lock.eq(step.lock)),
            *(channel.cache.eq(CACHE), channel.prot.eq(self.config.prot), channel.qos.eq(0)),
        ]
        if step.value is not None:
            w = self.m_axi.w.payload
            strobes = 1 << byte if step.byte else 0xFF
            lane = Cat(Const(int(step.second), 1), self.address[4:])[: (lanes - 1).bit_length()]
            m.d.comb += [
                *(w.data.eq(Const(step.value, 64).replicate(lanes)), w.last.eq(1)),
                w.strb.eq(Const(strobes, lanes * 8) << (lane << 3)),
            ]

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
            lanes = self.config.data_bits // 64
            lane = Cat(Const(int(step.second), 1), self.address[4:])[: (lanes - 1).bit_length()]
            m.d.comb += good.eq(wanted & (self.m_axi.r.payload.data.word_select(lane, 64) == step.found))
