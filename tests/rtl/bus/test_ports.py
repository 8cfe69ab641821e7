"""What the designs of the bus look like in Verilog."""

import pytest

from ptewalk.rtl.export import BUS_DESIGNS, describe
from ptewalk.rtl.presets import BUS

ADDRESS = {"id": 4, "addr": 40, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4}
CHANNELS = {
    "aw": ADDRESS,
    "w": {"data": 64, "strb": 8, "last": 1},
    "b": {"id": 4, "resp": 2},
    "ar": ADDRESS,
    "r": {"id": 4, "data": 64, "resp": 2, "last": 1},
}
"""AXI's names and widths, typed from its specification."""


def test_axi_has_its_names() -> None:
    """Both sides of the monitor, each port once, with its direction."""
    ports = {port.name: (port.direction, port.width) for port in describe(BUS["exclusive-monitor"]).ports}
    expected = {"clk": ("input", 1), "rst": ("input", 1)}
    for side in ("s_axi", "m_axi"):
        for channel, fields in CHANNELS.items():
            forth = (channel in ("b", "r")) == (side == "s_axi")
            there, back = ("output", "input") if forth else ("input", "output")
            expected |= {f"{side}_{channel}{name}": (there, width) for name, width in fields.items()}
            expected |= {f"{side}_{channel}valid": (there, 1), f"{side}_{channel}ready": (back, 1)}
    assert ports == expected


@pytest.mark.thorough
def test_each_design_has_a_preset() -> None:
    """And the board's has one more, with an engine."""
    configs = [config for name, config in BUS.items() if name != "ulx3s-engine"]
    assert [type(config) for config in configs] == [design.config for design in BUS_DESIGNS.values()]
    assert [describe(config).top for config in configs] == [f"ptewalk_{name}" for name in BUS_DESIGNS]
    assert type(BUS["ulx3s-engine"]) is BUS_DESIGNS["board"].config
