"""What the bridge's parts exchange, and what software sees of it."""

from enum import IntEnum

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data

from ptewalk.model import x86
from ptewalk.rtl.bus.axi import AddressLayout

__all__ = [
    "BridgeControlLayout",
    "BridgeStatusLayout",
    "BurstLayout",
    "FaultKind",
    "FaultMode",
    "FaultRecordLayout",
    "VerdictLayout",
]


class FaultMode(IntEnum):
    """What becomes of a burst that page-faults."""

    TERMINATE = 0
    """It is answered SLVERR."""
    STALL = 1
    """It waits, and holds no grant, until software says what becomes of it."""


class FaultKind(IntEnum):
    """Why a burst was not sent. Beside the first these are the numbers of `x86.Outcome`."""

    ILLEGAL = 0
    """AXI forbids it: it crosses 4 KiB, a beat is wider than the bus, W has another length than AW, and so on."""
    PAGE_FAULT = 1
    GENERAL_PROTECTION = 2
    BUS_ERROR = 3


class BridgeControlLayout(data.StructLayout):
    """What software sets; registers drive it. May change at any time, and holds for what is decided later.

    Members
    -------
    enable : 1
        0: no translation is asked for, so that bursts wait.
    fault_mode : unsigned(1)
        `FaultMode`.
    final_response : 1
        AWCACHE[0] is cleared: an answer to a write comes from where all see it. Normally 1.
    timeout : unsigned(32)
        Cycles that a burst may be stalled, then it is aborted; 0: any.
    retry_read, abort_read, retry_write, abort_write : 1
        For one cycle each: what becomes of the read, of the write that is stalled. Abort goes before retry.
    fixed_prot, user, fetch : 1
        With `fixed_prot` every access is the user's, or reads are fetches, as the other two say. Otherwise AxPROT says:
        bit 0 is the supervisor, bit 2 of AR a fetch.
    ac : 1
        RFLAGS.AC of every access: a supervisor may reach the user's pages under SMAP.
    map_cache : 1, pat_map : unsigned(32)
        AxCACHE of what is sent is field (PAT, PCD, PWT) of `pat_map`, four bits each; otherwise it passes.
    clear_overflow, clear_timeout : 1
        Clear `fault_overflow` and `stall_timeout`; what is raised in the same cycle stays.
    """

    def __init__(self) -> None:
        bits = ("retry_read", "abort_read", "retry_write", "abort_write", "fixed_prot", "user", "fetch", "ac")
        super().__init__(
            {
                "enable": 1,
                "fault_mode": Shape.cast(FaultMode),
                "final_response": 1,
                "timeout": unsigned(32),
                **dict.fromkeys(bits, 1),
                "map_cache": 1,
                "pat_map": unsigned(32),
                "clear_overflow": 1,
                "clear_timeout": 1,
            }
        )


class BridgeStatusLayout(data.StructLayout):
    """What software sees; the first three ask for an interrupt.

    Members
    -------
    fault : 1
        A record waits.
    fault_overflow : 1
        A record was lost, since the queue was full; the burst was answered SLVERR. Until cleared.
    stall_timeout : 1
        A stalled burst was aborted since `timeout` had passed. Until cleared.
    stalled_read, stalled_write : 1
        A burst waits for retry or abort.
    busy : 1
        A burst was taken and is not answered.
    """

    def __init__(self) -> None:
        names = ("fault", "fault_overflow", "stall_timeout", "stalled_read", "stalled_write", "busy")
        super().__init__(dict.fromkeys(names, 1))


class FaultRecordLayout(data.StructLayout):
    """A burst that was not sent.

    Members
    -------
    linear : unsigned(64)
        AxADDR.
    code : unsigned(16)
        Error code of a page fault, otherwise 0.
    id : unsigned(id_bits), len : unsigned(8)
        The burst's.
    write : 1
    kind : unsigned(2)
        `FaultKind`.
    stalled : 1
        It waits for retry or abort.
    """

    def __init__(self, id_bits: int) -> None:
        super().__init__(
            {
                "linear": unsigned(64),
                "code": unsigned(16),
                "id": unsigned(id_bits),
                "len": unsigned(8),
                "write": 1,
                "kind": Shape.cast(FaultKind),
                "stalled": 1,
            }
        )


class BurstLayout(data.StructLayout):
    """A burst as it came; `illegal`: as AXI forbids it."""

    def __init__(self, address_bits: int, id_bits: int, *, user_bits: int = 0) -> None:
        super().__init__({"address": AddressLayout(address_bits, id_bits, user_bits=user_bits), "illegal": 1})


class VerdictLayout(data.StructLayout):
    """What the MMU answered of a burst: fields of its response."""

    def __init__(self, physical_bits: int) -> None:
        super().__init__(
            {
                "outcome": Shape.cast(x86.Outcome),
                "code": unsigned(16),
                "frame": unsigned(physical_bits - x86.PAGE_SHIFT),
                "pwt": 1,
                "pcd": 1,
                "pat": 1,
            }
        )
