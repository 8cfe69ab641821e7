"""Signatures of the streams and ports between the gateware's parts."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from ptewalk.rtl.layouts import SwapLayout

__all__ = ["MemoryPortSignature"]


class MemoryPortSignature(Signature):
    """The port through which the MMU reads and conditionally writes 64-bit words, seen from the MMU.

    Reads and conditional writes have a channel each; answers come in order within a channel, and are always taken. A
    read and a swap to one address are never outstanding together. Latency L is counted from the cycle in which a
    transfer is accepted to the cycle in which its answer is valid; L >= 1.

    Parameters
    ----------
    physical_bits : int
        Width of an address, in bytes; addresses are 8-byte aligned.

    Members
    -------
    reads : Out(stream of {address})
    data : In(stream of {value, error}, always ready)
        One per read. `error`: the bus refused, `value` does not count.
    swaps : Out(stream of {address, old, new})
    swapped : In(stream of {done, error}, always ready)
        One per swap. `done`: the word was `old` and is `new` now. Neither: it was not `old`, and nothing was written.
        `error`: the bus refused; whether it was written is not known.
    """

    def __init__(self, physical_bits: int) -> None:
        super().__init__(
            {
                "reads": Out(stream.Signature(data.StructLayout({"address": unsigned(physical_bits)}))),
                "data": In(stream.Signature(data.StructLayout({"value": unsigned(64), "error": 1}), always_ready=True)),
                "swaps": Out(stream.Signature(SwapLayout(physical_bits))),
                "swapped": In(stream.Signature(data.StructLayout({"done": 1, "error": 1}), always_ready=True)),
            }
        )
