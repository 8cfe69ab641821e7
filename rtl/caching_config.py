"""What an MMU that caches is made of: its parameters, and which of them go together."""

from dataclasses import dataclass, field

from ptewalk.rtl.fault_unit import check_parameters
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.walker import WalkerConfig
from ptewalk.rtl.walkers import MOST_WALKERS

__all__ = ["CachingMmuConfig"]


def _power_of_two(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high and not value & (value - 1)


@dataclass(frozen=True)
class CachingMmuConfig:
    """Parameters of an MMU that caches; the defaults are preset mmu-small.

    Parameters
    ----------
    walker : WalkerConfig
        Its tag_bits are at most 10.
    fault_depth : int
        Entries of the fault queue, 1 to 1024; default 4.
    small_sets, small_ways : int
        Of the TLB's bank of 4 KiB pages: powers of two, 2 to 256 sets and 1 to 8 ways; default 8 and 2.
    large_sets, large_ways : int
        Of its bank of 2 MiB pages and fragments of 1 GiB pages; default 4 and 2.
    slots : int
        PCIDs whose translations stand at a time: a power of two, 2 to 16; default 4.
    waiting : int
        Requests that may wait for a walk, or are not known to hit, 3 to 64; default 4, the least with a hit a cycle.
    upper_entries : int
        Of the cache of each level above the page tables: a power of two, 2 to 64; 0 (default): there is none.
    walkers : int
        Walks in flight at most, 1 (default) to 8.
    read_grants : bool
        True: an OK to a read or fetch is a grant too, and retires; default False.
    split_lookup : bool
        True: a lookup takes a cycle more, and so does every answer, for a faster clock; then `waiting` is 5 at least
        for a hit a cycle. Only with one walker. Default False.
    log : LogConfig or None
        With a dirty log; only with one walker, and soft-dirty. Default None.
    """

    walker: WalkerConfig = field(default_factory=WalkerConfig)
    fault_depth: int = 4
    small_sets: int = 8
    small_ways: int = 2
    large_sets: int = 4
    large_ways: int = 2
    slots: int = 4
    waiting: int = 4
    upper_entries: int = 0
    walkers: int = 1
    read_grants: bool = False
    split_lookup: bool = False
    log: LogConfig | None = None

    @property
    def hit_latency(self) -> int:
        """Cycles from the acceptance of a request that hits to its answer."""
        return 3 + self.split_lookup

    def __post_init__(self) -> None:
        if not isinstance(self.walker, WalkerConfig):
            raise ValueError(f"walker must be a WalkerConfig, not {self.walker!r}")
        if self.walker.observe:
            raise ValueError("observe must be False in an MMU that caches, not True")
        check_parameters(tag_bits=self.walker.tag_bits, fault_depth=self.fault_depth)
        limits = {"small_sets": (2, 256), "large_sets": (2, 256), "small_ways": (1, 8), "large_ways": (1, 8)}
        for name, (low, high) in {**limits, "slots": (2, 16)}.items():
            value = getattr(self, name)
            if not _power_of_two(value, low, high):
                raise ValueError(f"{name} must be a power of two from {low} to {high}, not {value!r}")
        if not isinstance(self.waiting, int) or not 3 <= self.waiting <= 64:
            raise ValueError(f"waiting must be an integer from 3 to 64, not {self.waiting!r}")
        if self.upper_entries != 0 and not _power_of_two(self.upper_entries, 2, 64):
            raise ValueError(f"upper_entries must be 0 or a power of two from 2 to 64, not {self.upper_entries!r}")
        if not isinstance(self.walkers, int) or not 1 <= self.walkers <= MOST_WALKERS:
            raise ValueError(f"walkers must be an integer from 1 to {MOST_WALKERS}, not {self.walkers!r}")
        for name in ("read_grants", "split_lookup"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.split_lookup and self.walkers > 1:
            raise ValueError("split_lookup must be False with several walkers")
        if self.log is not None and not isinstance(self.log, LogConfig):
            raise ValueError(f"log must be a LogConfig or None, not {self.log!r}")
        if self.log and (self.walkers > 1 or not self.walker.soft_dirty):
            raise ValueError("log must be None with several walkers, or without soft_dirty")
