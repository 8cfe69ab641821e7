"""A serial line to a bus, by the wire format of LiteX's UARTBone, so that its client works."""

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from ptewalk.rtl.board.uart import Uart

__all__ = ["BoneSignature", "UartBone"]

WORD_BITS = 32


class Command(IntEnum):
    """The first byte of a message."""

    WRITE = 1
    READ = 2
    WRITE_FIXED = 3
    """All words to one address."""
    READ_FIXED = 4


class State(IntEnum):
    """What is received or done."""

    COMMAND = 0
    LENGTH = 1
    ADDRESS = 2
    DATA = 3
    ACCESS = 4
    ANSWER = 5


class BoneSignature(Signature):
    """Words of 32 bits, one access at a time, seen from who asks.

    Members
    -------
    asked : Out(stream of {write, address, value})
        `address` is in bytes, 4-byte aligned. It is taken in the cycle of the answer.
    value : In(32)
        What a read found, in that cycle.
    """

    def __init__(self) -> None:
        asked = data.StructLayout({"write": 1, "address": unsigned(WORD_BITS), "value": unsigned(WORD_BITS)})
        super().__init__({"asked": Out(stream.Signature(asked)), "value": In(unsigned(WORD_BITS))})


class UartBone(Component):
    """Messages of command, number of words, address in words, and the words of a write; words are big-endian.

    A byte that is no command is dropped. When the line is silent in the middle of a message it is forgotten. An access
    must end before the next byte has come.

    Parameters
    ----------
    divider : int
        As the UART's.
    silence : int
        Cycles without a byte after which a message is forgotten.

    Members
    -------
    rx : In(1), tx : Out(1)
    bus : Out(BoneSignature)
    """

    def __init__(self, *, divider: int, silence: int) -> None:
        self._silence = silence
        self.uart = Uart(divider=divider)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "bus": Out(BoneSignature())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.uart = uart = self.uart
        byte, arrives = uart.received.payload, uart.received.valid
        m.d.comb += [uart.rx.eq(self.rx), self.tx.eq(uart.tx)]
        state, left, index = Signal(State), Signal(8), Signal(2)
        reads, fixed = Signal(), Signal()
        address, word = Signal(WORD_BITS - 2), Signal(WORD_BITS)
        asked = self.bus.asked
        silent = Signal(range(self._silence + 1))
        m.d.comb += [
            asked.valid.eq(state == State.ACCESS),
            *(asked.payload.write.eq(~reads), asked.payload.value.eq(word)),
            asked.payload.address.eq(Cat(Const(0, 2), address)),
            uart.sent.valid.eq(state == State.ANSWER),
            uart.sent.payload.eq(word[-8:]),
        ]
        last = index == 3
        ends = left == 1
        with m.Switch(state):
            with m.Case(State.COMMAND):
                m.d.sync += index.eq(0)
                with m.If(arrives & (byte >= Command.WRITE) & (byte <= Command.READ_FIXED)):
                    m.d.sync += [reads.eq(~byte[0]), fixed.eq(byte >= Command.WRITE_FIXED), state.eq(State.LENGTH)]
            with m.Case(State.LENGTH):
                with m.If(arrives):
                    m.d.sync += [left.eq(byte), state.eq(State.ADDRESS)]
            with m.Case(State.ADDRESS):
                with m.If(arrives):
                    m.d.sync += [address.eq(Cat(byte, address)), index.eq(index + 1)]
                    with m.If(last):
                        m.d.sync += state.eq(Mux(reads, State.ACCESS, State.DATA))
                        with m.If(left == 0):
                            m.d.sync += state.eq(State.COMMAND)
            with m.Case(State.DATA):
                with m.If(arrives):
                    m.d.sync += [word.eq(Cat(byte, word)), index.eq(index + 1)]
                    with m.If(last):
                        m.d.sync += state.eq(State.ACCESS)
            with m.Case(State.ACCESS):
                with m.If(asked.ready):
                    m.d.sync += [address.eq(address + Mux(fixed, 0, 1)), left.eq(left - 1)]
                    with m.If(reads):
                        m.d.sync += [word.eq(self.bus.value), state.eq(State.ANSWER)]
                    with m.Else():
                        m.d.sync += state.eq(Mux(ends, State.COMMAND, State.DATA))
            with m.Case(State.ANSWER):
                with m.If(uart.sent.ready):
                    m.d.sync += [word.eq(word << 8), index.eq(index + 1)]
                    with m.If(last):
                        m.d.sync += state.eq(Mux(left == 0, State.COMMAND, State.ACCESS))
        listens = (state == State.LENGTH) | (state == State.ADDRESS) | (state == State.DATA)
        with m.If(arrives | ~listens):
            m.d.sync += silent.eq(0)
        with m.Elif(silent == self._silence):
            m.d.sync += [silent.eq(0), state.eq(State.COMMAND)]
        with m.Else():
            m.d.sync += silent.eq(silent + 1)
        return m
