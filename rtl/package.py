"""What is handed to somebody who has no Python: Verilog, its description, a template, a core file, registers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from ptewalk.model import linux, x86
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.export import Config, describe
from ptewalk.rtl.registers.map import REGISTERS
from ptewalk.rtl.registers.render import c_header, system_rdl
from ptewalk.rtl.registers.unit import UnitConfig

__all__ = ["NUMBERS", "Package", "package"]

NUMBERS: Final[dict[str, dict[str, int]]] = {
    "access": {access.name.lower(): int(access) for access in x86.Access},
    "outcome": {outcome.name.lower(): int(outcome) for outcome in x86.Outcome},
    "track": {track.name.lower(): int(track) for track in linux.Track},
    "control_bits": {bit.name.lower(): int(bit) for bit in x86.Control if bit is not x86.Control.AC},
    "invalidation": {kind.name.lower(): int(kind) for kind in x86.Invalidation},
    "wait": {wait.name.lower(): int(wait) for wait in x86.Wait},
    "error_code_bits": {bit.name.lower(): int(bit) for bit in x86.ErrorBit if bit <= x86.ErrorBit.PK},
}
"""What ports mean: numbers of access, outcome, track, invalidation, wait; bits of control and error code."""

RESET: Final = {"port": "rst", "kind": "synchronous", "active": "high"}
CLOCK: Final = {"port": "clk", "edge": "rising"}
# What write_verilog leaves and Verilator's -Wall names; none is about the design. Signals of no bits are ASCRANGE, and
# names that are a C++ word, or a memory's and its module's, SYMRSVDWORD and VARHIDDEN.
_LINT: Final = (
    *("ASCRANGE", "CASEOVERLAP", "DECLFILENAME", "PROCASSINIT", "SYMRSVDWORD", "UNUSEDSIGNAL", "VARHIDDEN"),
    *("WIDTHEXPAND", "WIDTHTRUNC"),
)


@dataclass(frozen=True)
class Package:
    """A design for other tools.

    Attributes
    ----------
    top : str
        Name of the Verilog module; those below it begin with the same name and a dot.
    verilog : str
        With a header that tells version and options, and Verilator's waivers.
    description : dict
        As JSON: `DesignDescription.as_json`, with "version", "clock", "reset" and "numbers".
    template : str
        Verilog to be included in a module: a wire for each port, and the instance.
    registers : dict of str to str
        Suffix of a file to its text: ``.rdl``, the map of registers in SystemRDL, and ``.h``, a C header; where there
        are registers.
    """

    top: str
    verilog: str
    description: dict[str, Any]
    template: str
    registers: dict[str, str]

    def core(self, file: str) -> str:
        """A FuseSoC core file, CAPI2, for the Verilog in `file` with its template; it is ``ptewalk:gateware:TOP``."""
        stem = file.rpartition(".")[0] or file
        lines = [
            "CAPI=2:",
            f'name: "ptewalk:gateware:{self.top}:{version("ptewalk")}"',
            f"description: {self.description['design']}, by ptewalk export",
            "filesets:",
            "  rtl:",
            "    files:",
            f"    - {file}",
            f"    - {stem}.vh: {{is_include_file: true}}",
            "    file_type: verilogSource",
            "targets:",
            "  default:",
            "    filesets: [rtl]",
            f"    toplevel: {self.top}",
        ]
        return "\n".join(lines) + "\n"


def package(config: Config, verilog: Callable[..., str], *, name: str | None = None, command: str = "") -> Package:
    """`config` for other tools.

    Parameters
    ----------
    verilog : callable (name=...)
        Gives `config`'s Verilog with that name of the top module, as `export_verilog` does.
    name : str, optional
        Of the top module, instead of ``ptewalk_walker``, ``ptewalk_mmu`` or ``ptewalk_caching_mmu``.
    command : str
        What it is made by; told in the header.

    Raises
    ------
    ValueError
        `name` is no Verilog identifier.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"name must be a Verilog identifier (letters, digits, _), not {name!r}")
    design = describe(config)
    top = name or design.top
    described = design.as_json() | {
        "top": top,
        "version": version("ptewalk"),
        "clock": CLOCK,
        "reset": RESET,
        "numbers": NUMBERS,
    }
    text = _header(design, top, command) + verilog(name=top) + _footer()
    return Package(top, text, described, _template(design, top), _registers(config, top))


def _header(design: DesignDescription, top: str, command: str) -> str:
    lines = [
        f"// ptewalk {version('ptewalk')}: {design.design}, module {top}",
        f"// parameters: {_listed(design.parameters)}",
        *([f"// made by: {command}"] if command else []),
        "// clk: rising edge. rst: synchronous, active high.",
        *(
            f"// {what.replace('_', ' ')}: {', '.join(f'{n} {v}' for n, v in NUMBERS[what].items())}"
            for what in NUMBERS
        ),
        *(f"/* verilator lint_off {warning} */" for warning in _LINT),
    ]
    return "\n".join(lines) + "\n"


def _registers(config: Config, top: str) -> dict[str, str]:
    """The map of a unit's registers for other tools; nothing for other designs."""
    if not isinstance(config, UnitConfig):
        return {}
    return {".rdl": system_rdl(REGISTERS, name=top, built=config.built), ".h": c_header(REGISTERS)}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _footer() -> str:
    return "".join(f"/* verilator lint_on {warning} */\n" for warning in _LINT)


def _template(design: DesignDescription, top: str) -> str:
    ports = design.ports
    kinds = [f"[{port.width - 1}:0] " if port.width > 1 else "" for port in ports]
    wires = [f"wire {kind}{port.name};  // {port.direction}" for port, kind in zip(ports, kinds, strict=True)]
    pins = ",\n".join(f"  .{port.name}({port.name})" for port in ports)
    return (
        "\n".join(
            [f"// An instance of {top}: give each input a driver.", *wires, f"{top} {design.design} (", pins, ");"]
        )
        + "\n"
    )
