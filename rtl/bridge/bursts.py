"""What is the same for bursts of both directions: which are illegal, what is asked about them, and what is sent."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from ptewalk.model import x86
from ptewalk.rtl.bus.axi import Burst

__all__ = ["AskLayout", "illegal", "mapped_cache", "send"]

_MOST_SHORT = 16
"""Beats of FIXED, WRAP and exclusive bursts at most [A3.4.1]."""


class AskLayout(data.StructLayout):
    """What the MMU is asked about a burst: fields of its request, and the burst's slot."""

    def __init__(self, slot_bits: int) -> None:
        super().__init__({"linear": unsigned(64), "access": x86.Access, "user": 1, "slot": unsigned(slot_bits)})


def illegal(m: Module, address: Any, *, data_bits: int) -> Signal:
    """AXI forbids this burst [A3.4.1].

    It crosses 4 KiB, its beats are wider than the bus, its kind is none; it is FIXED and too long; or it wraps, and has
    another length than 2, 4, 8 or 16 or begins inside a beat.
    """
    found, crosses = Signal(name="illegal"), Signal(name="crosses")
    largest = ((data_bits // 8) - 1).bit_length()
    size = address.size[: largest.bit_length()]
    inside = Signal(largest, name="inside")  # bytes of a beat - 1
    short = Cat(address.len == count - 1 for count in (2, 4, 8, _MOST_SHORT)).any()
    low = address.addr[: x86.PAGE_SHIFT]
    m.d.comb += [
        inside.eq((1 << size) - 1),
        # Of its last beat: bits of the address inside a beat add nothing.
        crosses.eq((low + (address.len << size))[x86.PAGE_SHIFT :].any()),
        found.eq(address.size > largest),
    ]
    with m.Switch(address.burst):
        with m.Case(Burst.INCR):
            with m.If(crosses):
                m.d.comb += found.eq(1)
        with m.Case(Burst.FIXED):
            with m.If(address.len >= _MOST_SHORT):
                m.d.comb += found.eq(1)
        with m.Case(Burst.WRAP):
            with m.If(~short | ((low & inside) != 0)):
                m.d.comb += found.eq(1)
        with m.Default():
            m.d.comb += found.eq(1)
    return found


def mapped_cache(control: Any, verdict: Any, passed: Value) -> Value:
    """AxCACHE of what is sent: by the page's memory type, or as it came."""
    field = control.pat_map.word_select(Cat(verdict.pwt, verdict.pcd, verdict.pat), 4)
    return Mux(control.map_cache, field, passed)


def send(m: Module, channel: Any, address: Any, frame: Value, cache: Value) -> None:
    """What is sent is the burst as it came, but for the page and the memory attributes."""
    for name, _ in address.shape():
        if name not in ("addr", "cache"):
            m.d.comb += channel.payload[name].eq(address[name])
    m.d.comb += [
        channel.payload.addr.eq(Cat(address.addr[: x86.PAGE_SHIFT], frame)),
        channel.payload.cache.eq(cache),
    ]
