"""Parameters of the bridge."""

from dataclasses import dataclass

from ptewalk.rtl.bus.axi import check_widths

__all__ = ["BridgeConfig"]

MOST_BEATS = 256
"""Of a burst."""


@dataclass(frozen=True)
class BridgeConfig:
    """Parameters of a `Bridge`.

    Parameters
    ----------
    linear_bits : int
        Address bits above, 32 to 64: linear addresses; those above are 0.
    physical_bits : int
        Address bits below, 32 to 52.
    data_bits : int
        64, 128, 256 or 512.
    id_bits : int
        1 to 8.
    reads, writes : int
        Bursts of each direction in the bridge and below it at a time: powers of two, 4 to 64; default 16.
    beats : int
        Beats that each of the two buffers holds, a power of two, 512 (default) to 4096.
    fault_depth : int
        Records of faults, 1 to 1024; default 4.
    read_grants : bool
        True: the MMU grants reads too, and each retires when all of R is in the bridge; default False.
    user_bits : int
        Of AxUSER, WUSER, BUSER and RUSER, which pass; 0 (default) to 128. An answer that the bridge makes has 0.
    atomic : bool
        AXI5's atomic transactions above: must be False.
    """

    linear_bits: int = 64
    physical_bits: int = 40
    data_bits: int = 64
    id_bits: int = 4
    reads: int = 16
    writes: int = 16
    beats: int = 512
    fault_depth: int = 4
    read_grants: bool = False
    user_bits: int = 0
    atomic: bool = False

    def __post_init__(self) -> None:
        ranges = {"linear_bits": (32, 64), "physical_bits": (32, 52), "id_bits": (1, 8), "fault_depth": (1, 1024)}
        ranges |= {"user_bits": (0, 128)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} of a bridge must be an integer from {low} to {high}, not {value!r}")
        check_widths(address_bits=self.physical_bits, data_bits=self.data_bits)
        for name, (low, high) in {"reads": (4, 64), "writes": (4, 64), "beats": (2 * MOST_BEATS, 4096)}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high or value & (value - 1):
                raise ValueError(f"{name} of a bridge must be a power of two from {low} to {high}, not {value!r}")
        if not isinstance(self.read_grants, bool):
            raise ValueError(f"read_grants of a bridge must be True or False, not {self.read_grants!r}")
        if self.atomic is not False:
            raise ValueError(f"atomic must be False: a bridge takes no AWATOP, not {self.atomic!r}")

    @property
    def slot_bits(self) -> int:
        """Of the number of a burst of either direction."""
        return (max(self.reads, self.writes) - 1).bit_length()

    @property
    def tag_bits(self) -> int:
        """Of a tag at the MMU: a slot, and above it 1 for a write."""
        return self.slot_bits + 1
