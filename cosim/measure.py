"""`ptewalk bench`: speeds, each beside its baseline, measured in one run."""

from __future__ import annotations

from typing import Any

from ptewalk.cosim.errors import ToolError
from ptewalk.cosim.gateware import BuiltWalker

__all__ = ["measure"]

_PROTOCOL_WALKS = 600


def measure(simulator: str | None, walks: int, seed: int) -> list[dict[str, Any]]:
    """Rows of {name, value, unit, baseline, ratio}: the batch level beside the protocol level on one model.

    Raises `ToolError` when the simulator has no batch level, or the walks measured do not agree with the golden model.
    """
    walker = BuiltWalker.make(simulator)
    if not walker.model.batch:
        raise ToolError(f"{walker.simulator} has no batch level: {walker.model.batch_trouble}")
    repeat = f"ptewalk bench --simulator {walker.model.simulator.name} --walks {walks} --seed {seed}"
    result = walker.randomised(walks + _PROTOCOL_WALKS, seed, repeat, protocol_walks=_PROTOCOL_WALKS)
    if result["failure"]:
        raise ToolError(f"the walks measured do not agree with the golden model: {result['failure']}")
    rows = []
    for name, unit, count in (("walks", "walks/s", "walks"), ("clock", "cycles/s", "cycles")):
        batch, protocol = (
            result["rates"][level][count] / result["rates"][level]["seconds"] for level in ("batch", "protocol")
        )
        rows.append(
            {
                "name": f"{name}: batch level",
                "value": round(batch),
                "unit": unit,
                "baseline": f"protocol level: {round(protocol)}",
                "ratio": round(batch / protocol, 1),
            }
        )
    return rows
