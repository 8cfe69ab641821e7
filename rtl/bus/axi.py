"""AXI4 as signatures of streams [AMBA AXI and ACE protocol specification, IHI 0022, part A]."""

from enum import IntEnum

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

__all__ = [
    "CHANNELS",
    "AddressLayout",
    "Atomic",
    "AxiSignature",
    "Burst",
    "DataLayout",
    "Response",
    "ResponseLayout",
    "WriteLayout",
    "check_widths",
]

CHANNELS = ("aw", "w", "b", "ar", "r")
DATA_BITS = (64, 128, 256, 512)


class Burst(IntEnum):
    """AxBURST [A3.4.1]."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(IntEnum):
    """RRESP and BRESP [A3.4.4]."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Atomic(IntEnum):
    """AWATOP [IHI 0022, atomic transactions]; stores and loads have their operation in bits 2 to 0."""

    NONE = 0b000000
    STORE = 0b010000
    LOAD = 0b100000
    SWAP = 0b110000
    COMPARE = 0b110001


def _user(bits: int) -> dict[str, Shape]:
    return {"user": unsigned(bits)} if bits else {}


class AddressLayout(data.StructLayout):
    """A transfer of AW or AR: the fields are AXI's, without REGION.

    Members
    -------
    id : unsigned(id_bits)
    addr : unsigned(address_bits)
        In bytes.
    len : unsigned(8)
        Beats - 1.
    size : unsigned(3)
        Log2 of the bytes of a beat.
    burst : unsigned(2)
        `Burst`.
    lock : 1
        The access is exclusive.
    cache : unsigned(4)
    prot : unsigned(3)
    qos : unsigned(4)
    atop : unsigned(6)
        Of an AW of AXI5 with `atomic`: 0, or which atomic transaction it is.
    user : unsigned(user_bits)
        Only where there are any.
    """

    def __init__(self, address_bits: int, id_bits: int, *, atomic: bool = False, user_bits: int = 0) -> None:
        fields = {
            "id": unsigned(id_bits),
            "addr": unsigned(address_bits),
            "len": unsigned(8),
            "size": unsigned(3),
            "burst": unsigned(2),
            "lock": unsigned(1),
            "cache": unsigned(4),
            "prot": unsigned(3),
            "qos": unsigned(4),
        }
        super().__init__({**fields, **({"atop": unsigned(6)} if atomic else {}), **_user(user_bits)})


class WriteLayout(data.StructLayout):
    """A beat of W; `user` where there are such bits."""

    def __init__(self, data_bits: int, *, user_bits: int = 0) -> None:
        fields = {"data": unsigned(data_bits), "strb": unsigned(data_bits // 8), "last": unsigned(1)}
        super().__init__({**fields, **_user(user_bits)})


class ResponseLayout(data.StructLayout):
    """A transfer of B; `resp` is `Response`; `user` where there are such bits."""

    def __init__(self, id_bits: int, *, user_bits: int = 0) -> None:
        super().__init__({"id": unsigned(id_bits), "resp": unsigned(2), **_user(user_bits)})


class DataLayout(data.StructLayout):
    """A beat of R; `resp` is `Response`; `user` where there are such bits."""

    def __init__(self, data_bits: int, id_bits: int, *, user_bits: int = 0) -> None:
        fields = {"id": unsigned(id_bits), "data": unsigned(data_bits), "resp": unsigned(2), "last": unsigned(1)}
        super().__init__({**fields, **_user(user_bits)})


class AxiSignature(Signature):
    """An AXI4 interface, seen from the manager: a stream for each channel.

    `ptewalk.rtl.export.FlatTop` gives its ports AXI's names: of a member `m_axi`, `m_axi_awaddr` and so on.

    Parameters
    ----------
    address_bits, data_bits, id_bits : int
    atomic : bool
        With AWATOP, AXI5's atomic transactions; default False.
    user_bits : int
        Of USER on each channel; default 0, without it.

    Members
    -------
    aw, ar : Out(stream of AddressLayout)
    w : Out(stream of WriteLayout)
    b : In(stream of ResponseLayout)
    r : In(stream of DataLayout)
    """

    def __init__(
        self, *, address_bits: int, data_bits: int, id_bits: int, atomic: bool = False, user_bits: int = 0
    ) -> None:
        super().__init__(
            {
                "aw": Out(stream.Signature(AddressLayout(address_bits, id_bits, atomic=atomic, user_bits=user_bits))),
                "w": Out(stream.Signature(WriteLayout(data_bits, user_bits=user_bits))),
                "b": In(stream.Signature(ResponseLayout(id_bits, user_bits=user_bits))),
                "ar": Out(stream.Signature(AddressLayout(address_bits, id_bits, user_bits=user_bits))),
                "r": In(stream.Signature(DataLayout(data_bits, id_bits, user_bits=user_bits))),
            }
        )


def check_widths(*, address_bits: int, data_bits: int) -> None:
    """Refuse widths that no interface of this project has.

    Raises
    ------
    ValueError
        `address_bits` is not 13 to 64, or `data_bits` is not 64, 128, 256 or 512.
    """
    if not isinstance(address_bits, int) or not 13 <= address_bits <= 64:
        raise ValueError(f"address_bits must be an integer from 13 to 64, not {address_bits!r}")
    if not isinstance(data_bits, int) or data_bits not in DATA_BITS:
        raise ValueError(f"data_bits must be 64, 128, 256 or 512, not {data_bits!r}")
