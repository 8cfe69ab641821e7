"""AXI4-Lite as a signature of streams [AMBA AXI and ACE protocol specification, IHI 0022, B1]."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["AxiLiteSignature"]


class AxiLiteSignature(Signature):
    """An AXI4-Lite interface of 32 bits of data, seen from the manager: a stream for each channel.

    In a flattened top its ports have AXI's names, as those of `AxiSignature`. `resp` is `axi.Response`.

    Parameters
    ----------
    address_bits : int

    Members
    -------
    aw, ar : Out(stream of {addr, prot})
    w : Out(stream of {data, strb})
    b : In(stream of {resp})
    r : In(stream of {data, resp})
    """

    def __init__(self, *, address_bits: int) -> None:
        address = data.StructLayout({"addr": unsigned(address_bits), "prot": unsigned(3)})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(data.StructLayout({"data": unsigned(32), "strb": unsigned(4)}))),
                "b": In(stream.Signature(data.StructLayout({"resp": unsigned(2)}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({"data": unsigned(32), "resp": unsigned(2)}))),
            }
        )
