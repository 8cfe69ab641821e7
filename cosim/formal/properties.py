"""What is proved of the gateware: harnesses with Amaranth Assert, Assume and Cover.

The environment is as hostile as the port allows: memory answers any value at every read, whatever it answered before;
a conditional write may succeed, fail or end in a bus error; every ready may be withheld. What is assumed beyond that
stands in each harness's `assumptions`, and is printed with the result.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol

from ptewalk.cosim.formal.bridge import BridgeWrites
from ptewalk.cosim.formal.bridge_bounds import BridgeReadsBound, BridgeWritesBound
from ptewalk.cosim.formal.bridge_reads import BridgeReads, BridgeRoom
from ptewalk.cosim.formal.bridge_turns import BridgeTurns
from ptewalk.cosim.formal.delivery import DeliveryHarness, DeliveryReadsHarness, DeliverySeveralHarness, DeliverySplit
from ptewalk.cosim.formal.ending import EngineEnding
from ptewalk.cosim.formal.fault_unit import FaultUnitDrain, FaultUnitQueue
from ptewalk.cosim.formal.fetcher import FetcherSwaps, FetcherTables
from ptewalk.cosim.formal.glue import (
    GlueAnswers,
    GlueAnswersSplit,
    GlueAnswersTwo,
    GlueKeeps,
    GlueKeepsSplit,
    GlueKeepsTwo,
)
from ptewalk.cosim.formal.harness import Harness
from ptewalk.cosim.formal.lines import LinesSwaps
from ptewalk.cosim.formal.log import LogRecords
from ptewalk.cosim.formal.maintenance import MaintenanceHarness
from ptewalk.cosim.formal.monitor import MonitorAtomic, MonitorProgress
from ptewalk.cosim.formal.outstanding import OutstandingHarness
from ptewalk.cosim.formal.queues import InTurnHarness, WaitingHarness
from ptewalk.cosim.formal.slots import PcidSlotsHarness
from ptewalk.cosim.formal.starts import WalkerStarts
from ptewalk.cosim.formal.tlb import FullTlbHarness, SplitTlbHarness, TlbHarness
from ptewalk.cosim.formal.upper_caches import SplitUpperCaches, UpperCachesHarness
from ptewalk.cosim.formal.waits import WaitsHarness, WaitsReadsHarness
from ptewalk.cosim.formal.walker import WalkerBound, WalkerReset, WalkerTranslation, WalkerWrites
from ptewalk.cosim.formal.walkers import WalkersHarness
from ptewalk.cosim.formal.whole import MmuAnswers, MmuAnswersSplit
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["PROPERTIES", "Property", "harness_of"]

_CONFIGS: Final = {
    "levels-4": WalkerConfig(levels=4),
    "no-soft-dirty": WalkerConfig(soft_dirty=False),
    "no-gigabyte-pages": WalkerConfig(gigabyte_pages=False),
}
"""What the walker's properties are proved of beside the default configuration."""


class Property(Protocol):
    """Makes a harness: that of the proof, or that of the bounded search."""

    def __call__(self, *, searching: bool = False) -> Harness: ...


_WALKER: Final = (WalkerWrites, WalkerBound, WalkerTranslation)

PROPERTIES: dict[str, Property] = {
    **{harness.title: harness for harness in _WALKER},
    **{f"{harness.title}/{name}": partial(harness, config) for harness in _WALKER for name, config in _CONFIGS.items()},
    WalkerReset.title: WalkerReset,
    WalkerStarts.title: WalkerStarts,
    FaultUnitDrain.title: FaultUnitDrain,
    FaultUnitQueue.title: FaultUnitQueue,
    TlbHarness.title: TlbHarness,
    PcidSlotsHarness.title: PcidSlotsHarness,
    UpperCachesHarness.title: UpperCachesHarness,
    SplitUpperCaches.title: SplitUpperCaches,
    MaintenanceHarness.title: MaintenanceHarness,
    GlueKeeps.title: GlueKeeps,
    GlueKeepsTwo.title: GlueKeepsTwo,
    GlueAnswers.title: GlueAnswers,
    GlueAnswersTwo.title: GlueAnswersTwo,
    GlueKeepsSplit.title: GlueKeepsSplit,
    GlueAnswersSplit.title: GlueAnswersSplit,
    DeliveryHarness.title: DeliveryHarness,
    DeliveryReadsHarness.title: DeliveryReadsHarness,
    DeliverySeveralHarness.title: DeliverySeveralHarness,
    DeliverySplit.title: DeliverySplit,
    WalkersHarness.title: WalkersHarness,
    InTurnHarness.title: InTurnHarness,
    WaitingHarness.title: WaitingHarness,
    MonitorAtomic.title: MonitorAtomic,
    MonitorProgress.title: MonitorProgress,
    BridgeWrites.title: BridgeWrites,
    BridgeReads.title: BridgeReads,
    BridgeRoom.title: BridgeRoom,
    BridgeWritesBound.title: BridgeWritesBound,
    BridgeReadsBound.title: BridgeReadsBound,
    BridgeTurns.title: BridgeTurns,
    OutstandingHarness.title: OutstandingHarness,
    WaitsHarness.title: WaitsHarness,
    WaitsReadsHarness.title: WaitsReadsHarness,
    LogRecords.title: LogRecords,
    EngineEnding.title: EngineEnding,
    FetcherTables.title: FetcherTables,
    FetcherSwaps.title: FetcherSwaps,
    LinesSwaps.title: LinesSwaps,
    SplitTlbHarness.title: SplitTlbHarness,
    FullTlbHarness.title: FullTlbHarness,
    MmuAnswers.title: MmuAnswers,
    MmuAnswersSplit.title: MmuAnswersSplit,
}
"""Name to harness, for ``ptewalk prove``."""


def harness_of(name: str) -> type[Harness]:
    """The class of a property's harness."""
    make: Any = PROPERTIES[name]
    found: Any = make.func if isinstance(make, partial) else make
    assert issubclass(found, Harness)
    return found
