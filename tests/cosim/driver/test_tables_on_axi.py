"""A unit with a table engine by its registers alone, on both simulators, on a memory that ignores AxLOCK."""

from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

HERE = Path(__file__).parent
MMU = CachingMmuConfig(WalkerConfig(trace=False, levels=4, tag_bits=4))
CONFIG = UnitConfig(MMU, monitor=True, engine=EngineConfig(lines=4))


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_by_registers_alone(simulator: str) -> None:
    """Stores between clears, ageing, pagemap, bitmaps and moves by the engine: as golden rules on their own memory."""
    model = build(select(simulator), verilog_of(CONFIG, flat=True), top_name(CONFIG), design=describe(CONFIG))
    result = run_test(model, "tb_tables", values={"seed": 4, "count": 110}, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["differ"] == []
    counts = told["counts"]
    assert sum(counts.values()) - counts["bits"] - counts["written"] == 110 and counts["store"] >= 20
    least = {"clear": 3, "clear of a space": 3, "words": 6, "old": 1, "move": 1, "bitmap": 6, "bits": 6}
    assert all(counts.get(what, 0) >= count for what, count in least.items())
    built = {name: told["built"][name] for name in ("engine", "engine_lines", "engine_line_bytes", "exclusive_ids")}
    assert built == {"engine": 1, "engine_lines": 4, "engine_line_bytes": 128, "exclusive_ids": 6}
    assert told["counters"]["marks"] == told["marks"] >= 3 and told["stay"] >= 3
    wrong = ("no_monitor", "retry_limit", "outcome_unknown", "tag_reused", "stray_retirement", "memory_error", "busy")
    assert not any(told["status"][name] for name in wrong)
    assert told["taken"] == [37, 0]
    stopped, page = told["aborted"]
    assert stopped and page < 1024
