"""The bridge at protocol level on both simulators, with a manager and memories that others wrote."""

from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.translating import TranslatingBridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.walker import WalkerConfig

HERE = Path(__file__).parent


def run(simulator: str, bits: int, testcase: str, **values: Any) -> dict[str, Any]:
    """What a test of tb_bridge published."""
    mmu = CachingMmuConfig(WalkerConfig(trace=False))
    config = TranslatingBridgeConfig(mmu, BridgeConfig(data_bits=bits), table_bits=bits, monitor=True)
    model = build(select(simulator), verilog_of(config), top_name(config), design=describe(config))
    result = run_test(model, "tb_bridge", testcase=testcase, values=values, module_path=HERE)
    assert result.message == ""
    return result.values


@pytest.mark.slow
@pytest.mark.share(10)
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize(("simulator", "bits"), [("verilator", 64), ("icarus", 128)])
def test_random_bursts(simulator: str, bits: int, part: int) -> None:
    """2,000 transactions on each simulator with `--whole`, 200 without; soft-dirty is cleared between."""
    told = run(simulator, bits, "random_bursts", seed=part, count=200)
    assert told["problems"] == []
    assert told["transactions"] == 200 and told["refused"] >= 10
    assert told["clears"] >= 10 and told["cleared"] >= 5 and told["marks"] >= told["cleared"]
    assert told["judged"] >= 1000 and told["choices"] >= 1
    assert {told[name] for name in ("granted", "busy", "tag_reused", "stray_retirement")} == {0}


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "bits", "count"), [("verilator", 128, 100), ("icarus", 64, 60)])
def test_recorded_walks(simulator: str, bits: int, count: int) -> None:
    """As the engines answered: physical address or error code, and every word of the tables."""
    told = run(simulator, bits, "recorded", file=str(WALKS), seed=3, count=count)
    assert told["differ"] == []
    assert told["compared"] == count
    assert min(told[name] for name in ("OK", "PAGE_FAULT")) >= 20 and told["GENERAL_PROTECTION"] >= 1
