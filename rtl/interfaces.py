"""Signatures of the interfaces between the gateware's parts; each can be `connect`ed."""

from amaranth.hdl import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from ptewalk.rtl.layouts import (
    ContextLayout,
    FaultLayout,
    RequestLayout,
    ResponseLayout,
    StatusLayout,
    SwapLayout,
)

__all__ = ["ID_BITS", "ContextSignature", "MemoryPortSignature", "RequesterSignature", "SupervisorSignature"]

ID_BITS = 2
"""Width of an access's `id` at the memory port of one walker."""


class RequesterSignature(Signature):
    """Who has accesses translated, seen from the requester.

    Parameters
    ----------
    physical_bits, tag_bits : int
        As in `WalkerConfig`.
    retires : bool
        True: stores that were allowed are told as they become visible.

    Members
    -------
    requests : Out(stream of RequestLayout)
    responses : In(stream of ResponseLayout)
        Exactly one per request.
    retired : Out(stream of {tag}, always ready)
        One per *grant*, an OK to a write or rmw, when its store is globally visible: in any order, in the cycle in
        which the response is taken at the earliest. Only with `retires`.
    """

    def __init__(self, *, physical_bits: int, tag_bits: int, retires: bool = False) -> None:
        members = {
            "requests": Out(stream.Signature(RequestLayout(tag_bits))),
            "responses": In(stream.Signature(ResponseLayout(physical_bits, tag_bits))),
        }
        if retires:
            tag = data.StructLayout({"tag": unsigned(tag_bits)})
            members["retired"] = Out(stream.Signature(tag, always_ready=True))
        super().__init__(members)


class MemoryPortSignature(Signature):
    """The port through which the MMU reads and conditionally writes 64-bit words, seen from the MMU.

    Reads and conditional writes have a channel each. An answer carries its access's `id`: answers may come in any
    order, and are always taken. At most one read and one swap of an id are outstanding. Nothing is said of the order of
    accesses to one address: memory orders them, and each swap is atomic. Latency L is counted from the cycle in which a
    transfer is accepted to the cycle in which its answer is valid; L >= 1.

    Answers of accesses that were made before a reset carry the ids of that time: the MMU drops them. It goes through
    its 2**`ID_BITS` ids, one a reset: no answer may be later than three resets.

    Parameters
    ----------
    physical_bits : int
        Width of an address, in bytes; addresses are 8-byte aligned.
    walkers : int
        Who makes accesses: each has its own ids, whose low bits are its number. Default 1: no such bits.

    Members
    -------
    reads : Out(stream of {address, id})
    data : In(stream of {value, error, id}, always ready)
        One per read. `error`: the bus refused, `value` does not count.
    swaps : Out(stream of {address, old, new, id})
    swapped : In(stream of {done, error, id}, always ready)
        One per swap. `done`: the word was `old` and is `new` now. Neither: it was not `old`, and nothing was written.
        `error`: the bus refused; whether it was written is not known.
    """

    def __init__(self, physical_bits: int, *, walkers: int = 1) -> None:
        id_bits = ID_BITS + (walkers - 1).bit_length()
        identity = {"id": unsigned(id_bits)}
        read = data.StructLayout({"address": unsigned(physical_bits), **identity})
        value = data.StructLayout({"value": unsigned(64), "error": 1, **identity})
        done = data.StructLayout({"done": 1, "error": 1, **identity})
        super().__init__(
            {
                "reads": Out(stream.Signature(read)),
                "data": In(stream.Signature(value, always_ready=True)),
                "swaps": Out(stream.Signature(SwapLayout(physical_bits, id_bits))),
                "swapped": In(stream.Signature(done, always_ready=True)),
            }
        )


class SupervisorSignature(Signature):
    """What the operating system sees of the fault unit, seen from there.

    Parameters
    ----------
    tag_bits : int
        As in `WalkerConfig`.

    Members
    -------
    faults : In(stream of FaultLayout)
        One per page fault that found room in the queue, in order.
    drain : Out(1)
        Held until `drained`; requests that the walker has not accepted wait.
    drained : In(1)
        Nothing is in flight and no grant is outstanding; only with `drain`.
    granted : In(tag_bits + 1)
        Grants outstanding.
    status : In(StatusLayout)
    clear : Out(StatusLayout)
        Clears the bits of `status` that are 1 here; one that is raised in the same cycle stays.
    """

    def __init__(self, *, tag_bits: int) -> None:
        super().__init__(
            {
                "faults": In(stream.Signature(FaultLayout(tag_bits))),
                "drain": Out(1),
                "drained": In(1),
                "granted": In(unsigned(tag_bits + 1)),
                "status": In(StatusLayout()),
                "clear": Out(StatusLayout()),
            }
        )


def ContextSignature(*, physical_bits: int, soft_dirty: bool, pcids: bool = False) -> stream.Signature:  # noqa: N802 - as a class
    """The stream of contexts, seen from who sets them: in order with requests.

    A context is taken while no request is in flight, and before a request that is on offer in the same cycle: it holds
    for all requests accepted after it, and for none accepted before. After reset every field is 0.

    Parameters
    ----------
    physical_bits, soft_dirty
        As in `WalkerConfig`.
    pcids : bool
        With `pcid` and `keep`.
    """
    return stream.Signature(ContextLayout(physical_bits, soft_dirty=soft_dirty, pcids=pcids))
