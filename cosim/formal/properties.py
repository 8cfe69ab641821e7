"""What is proved of the gateware: harnesses with Amaranth Assert, Assume and Cover.

The environment is as hostile as the port allows: memory answers any value at every read, whatever it answered before;
a conditional write may succeed, fail or end in a bus error; every ready may be withheld. What is assumed beyond that
stands in each harness's `assumptions`, and is printed with the result.
"""

from __future__ import annotations

from collections.abc import Callable

from ptewalk.cosim.formal.fault_unit import FaultUnitDrain, FaultUnitQueue
from ptewalk.cosim.formal.harness import Harness
from ptewalk.cosim.formal.walker import WalkerBound, WalkerTranslation, WalkerWrites

__all__ = ["PROPERTIES"]

PROPERTIES: dict[str, Callable[[], Harness]] = {
    harness.title: harness for harness in (WalkerWrites, WalkerBound, WalkerTranslation, FaultUnitDrain, FaultUnitQueue)
}
"""Name to harness, for ``ptewalk prove``."""
