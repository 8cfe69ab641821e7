"""An MMU on AXI4: its ports and parameters, and what becomes of a bus without a monitor."""

from dataclasses import replace
from typing import Any

import pytest

from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig


@pytest.mark.thorough
@pytest.mark.parametrize("mmu", [MmuConfig(), CachingMmuConfig()])
@pytest.mark.parametrize("monitor", [False, True])
def test_ports_are_the_mmus_with_axi_for_memory(mmu: MmuConfig | CachingMmuConfig, monitor: bool) -> None:
    inner = {port.name: (port.direction, port.width) for port in describe(mmu).ports}
    outer = {port.name: (port.direction, port.width) for port in describe(AxiMmuConfig(mmu, monitor=monitor)).ports}
    added = {name for name in outer.keys() - inner.keys() if not name.startswith("m_axi_")}
    status = ("no_monitor", "retry_limit", "outcome_unknown")
    assert added == {f"{member}__{name}" for member in ("status", "clear") for name in status} | {"unknown_address"}
    missing = {name for name in inner.keys() - outer.keys() if not name.startswith("memory__")}
    assert not missing
    assert all(outer[name] == inner[name] for name in inner.keys() & outer.keys())
    assert outer["m_axi_araddr"] == ("output", 40) and outer["m_axi_rdata"] == ("input", 64)
    assert outer["m_axi_awlock"] == ("output", 1) and outer["m_axi_arcache"] == ("output", 4)


def test_the_bus_is_as_wide_as_physical_addresses() -> None:
    config = AxiMmuConfig(MmuConfig(WalkerConfig(physical_bits=46)), data_bits=256, monitor=True)
    widths = {port.name: port.width for port in describe(config).ports}
    assert (widths["m_axi_awaddr"], widths["m_axi_wdata"], widths["m_axi_wstrb"]) == (46, 256, 32)


@pytest.mark.parametrize(
    ("walkers", "wanted", "ids", "bits"),
    [(1, None, 1, 1), (3, None, 4, 2), (8, None, 8, 3), (8, 2, 2, 1), (8, 32, 32, 5)],
)
def test_an_id_for_each_walker(walkers: int, wanted: int | None, ids: int, bits: int) -> None:
    """As many as walkers, rounded up; or fewer, which they share; or more, up to the ids of the port."""
    config = AxiMmuConfig(CachingMmuConfig(walkers=walkers, waiting=16), exclusive_ids=wanted, monitor=True)
    assert config.port.exclusive_ids == ids
    widths = {port.name: port.width for port in describe(config).ports}
    assert [widths[f"m_axi_{name}"] for name in ("arid", "awid", "rid", "bid")] == [bits] * 4


@pytest.mark.thorough
def test_atomic_transactions_are_seen_at_the_pins() -> None:
    """AWATOP, and nothing else: with a log, whose records are plain writes, too."""
    for mmu in (MmuConfig(), CachingMmuConfig(log=LogConfig())):
        plain, atomic = (
            {port.name: (port.direction, port.width) for port in describe(AxiMmuConfig(mmu, atomic=with_it)).ports}
            for with_it in (False, True)
        )
        assert atomic == plain | {"m_axi_awatop": ("output", 6)}


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"mmu": WalkerConfig()}, "mmu must be an MmuConfig or a CachingMmuConfig, not WalkerConfig"),
        (
            {"mmu": CachingMmuConfig(walkers=2, waiting=16), "exclusive_ids": 16},
            "exclusive_ids must be 1, 2, 4 or 8 with 2 walkers, not 16",
        ),
        (
            {"mmu": CachingMmuConfig(log=LogConfig()), "exclusive_ids": 2},
            "exclusive_ids must be 1 with a log, whose records have ID 1, not 2",
        ),
        ({"monitor": 1}, "monitor must be True or False, not 1"),
        ({"atomic": 1}, "atomic must be True or False, not 1"),
        ({"atomic": True, "monitor": True}, "monitor must be False with atomic: it takes no AWATOP, not True"),
        ({"atomic": True, "exclusive_ids": 3}, "ids must be 1, 2 or 4, not 3"),
        ({"data_bits": 32}, "data_bits must be 64, 128, 256 or 512, not 32"),
        ({"link": None}, "link must be True or False, not None"),
        ({"prot": 8}, "prot must be an integer from 0 to 7, not 8"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(AxiMmuConfig(), **parameters)
