"""Verilog export: a top module whose ports are plain, one per field."""

import os
from pathlib import Path
from typing import Final

import amaranth
from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Module, Shape, Signal, Value
from amaranth.lib.wiring import Component, Flow

from ptewalk.rtl.layouts import flat_fields
from ptewalk.rtl.mmu import Mmu, MmuConfig
from ptewalk.rtl.walker import Walker, WalkerConfig

__all__ = ["Config", "FlatTop", "export_rtlil", "export_verilog", "flat_top", "top_name"]

Config = WalkerConfig | MmuConfig
"""What can be exported."""

_PACKAGES: Final = Path(__file__).resolve().parent.parent
_AMARANTH: Final = Path(amaranth.__file__).resolve().parent.parent
_PYTHON: Final = Path(os.__file__).resolve().parent
_YOSYS_MINIMUM: Final = (0, 40)
"""The oldest Yosys that Amaranth's own back end takes."""


class FlatTop(Elaboratable):
    """A component with its members flattened to plain signals.

    A stream's payload of a struct layout becomes one port per field, named ``member__payload__field``.

    Parameters
    ----------
    component : Component

    Attributes
    ----------
    ports : dict of str to (Flow, Signal)
        The ports beside clk and rst, in order.
    """

    def __init__(self, component: Component) -> None:
        self.component = component
        self.ports: dict[str, tuple[Flow, Signal]] = {}
        self._pairs: list[tuple[Flow, Signal, Value]] = []
        for path, member, value in component.signature.flatten(component):
            if not member.is_port or not isinstance(Value.cast(value), Signal):
                continue  # an always-ready stream's constant
            name = "__".join(str(part) for part in path)
            fields = flat_fields(member.shape)
            if fields is None:
                self._add(name, member.flow, Shape.cast(member.shape), Value.cast(value))
            else:
                for field, shape in fields.items():
                    self._add(f"{name}__{field}", member.flow, shape, Value.cast(value[field]))

    def _add(self, name: str, flow: Flow, shape: Shape, value: Value) -> None:
        port = Signal(shape.width, name=name)
        self.ports[name] = (flow, port)
        self._pairs.append((flow, port, value))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = self.component
        for flow, port, value in self._pairs:
            m.d.comb += port.eq(value) if flow is Flow.Out else value.eq(port)
        return m


def top_name(config: Config) -> str:
    """Name of the Verilog module of `config`'s top."""
    if isinstance(config, WalkerConfig):
        return "ptewalk_walker"
    if isinstance(config, MmuConfig):
        return "ptewalk_mmu"
    raise TypeError(f"config must be a WalkerConfig or an MmuConfig, not {config!r}")


def flat_top(config: Config) -> FlatTop:
    """The flattened top of `config`."""
    return FlatTop(Walker(config) if isinstance(config, WalkerConfig) else Mmu(config))


def export_verilog(config: Config, *, flat: bool = False) -> str:
    """The Verilog text of `config`'s top, with the Python line of each statement in its `src` attributes.

    Combinational logic is written as continuous assignments. `always @*` would simulate wrongly: a block that assigns
    a constant reads nothing, so it never runs (Verilator), and several that write parts of one vector wake each other
    without end (Icarus 11).

    Parameters
    ----------
    flat : bool
        One optimised module without the design's inner names: an event-driven simulator runs it several times faster.
    """
    yosys = find_yosys(lambda version: version >= _YOSYS_MINIMUM)
    passes = ["proc -norom", *(["flatten", "opt -full", "clean -purge"] if flat else [])]
    script = ["read_rtlil <<rtlil", export_rtlil(config), "rtlil", *passes, "memory_collect", "write_verilog"]
    text: str = yosys.run(["-q", "-"], "\n".join(script))
    return text


def export_rtlil(config: Config) -> str:
    """The RTLIL text of `config`'s top, for Yosys; no path of a machine stands in its `src` attributes."""
    top = flat_top(config)
    text: str = rtlil.convert(top, name=top_name(config), ports=[port for _, port in top.ports.values()])
    for folder in (_AMARANTH, _PACKAGES, _PYTHON):
        text = text.replace(f"{folder}/", "")
    return text
