"""Verilog export: a top module whose ports are plain, one per field."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import amaranth
from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Fragment, Module, Shape, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, Flow, Signature

from ptewalk.rtl.board.top import BoardConfig, BoardUnit
from ptewalk.rtl.bridge.translating import TranslatingBridge, TranslatingBridgeConfig
from ptewalk.rtl.bus.atomic import AtomicPort, AtomicPortConfig
from ptewalk.rtl.bus.axi import CHANNELS, AxiSignature
from ptewalk.rtl.bus.axi_lite import AxiLiteSignature
from ptewalk.rtl.bus.exclusive import ExclusivePort, ExclusivePortConfig
from ptewalk.rtl.bus.lock import LockRam, LockRamConfig
from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.bus.on_axi import AxiMmu, AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.description import DesignDescription, PortDescription, StreamDescription
from ptewalk.rtl.engine.on_axi import AxiEngine, AxiEngineConfig
from ptewalk.rtl.engine.table_engine import EngineConfig, TableEngine
from ptewalk.rtl.engine.with_mmu import MmuEngine, MmuEngineConfig
from ptewalk.rtl.layouts import flat_fields
from ptewalk.rtl.mmu import Mmu, MmuConfig
from ptewalk.rtl.points import add_levels, add_points, elaborated
from ptewalk.rtl.registers.unit import Unit, UnitConfig
from ptewalk.rtl.walker import Walker, WalkerConfig

__all__ = [
    "BUS_DESIGNS",
    "DESIGNS",
    "Config",
    "Covered",
    "Design",
    "FlatTop",
    "describe",
    "design_of",
    "export_covered",
    "export_rtlil",
    "export_verilog",
    "flat_top",
    "top_name",
]

Config = (
    WalkerConfig
    | MmuConfig
    | CachingMmuConfig
    | LockRamConfig
    | ExclusivePortConfig
    | AtomicPortConfig
    | MonitorConfig
    | AxiMmuConfig
    | TranslatingBridgeConfig
    | UnitConfig
    | BoardConfig
    | EngineConfig
    | AxiEngineConfig
    | MmuEngineConfig
)
"""What can be exported."""


@dataclass(frozen=True)
class Design:
    """What can be built, simulated and exported.

    Attributes
    ----------
    config : type
        Of its configurations; made without arguments it is the default.
    component : callable
        Makes the component of a configuration.
    """

    config: type[Config]
    component: Callable[[Any], Component]


DESIGNS: Final = {
    "walker": Design(WalkerConfig, Walker),
    "mmu": Design(MmuConfig, Mmu),
    "caching_mmu": Design(CachingMmuConfig, CachingMmu),
}
"""Name to design that translates; the Verilog module is ``ptewalk_`` and the name."""
BUS_DESIGNS: Final = {
    "lock_ram": Design(LockRamConfig, LockRam),
    "exclusive_port": Design(ExclusivePortConfig, ExclusivePort),
    "atomic_port": Design(AtomicPortConfig, AtomicPort),
    "exclusive_monitor": Design(MonitorConfig, ExclusiveMonitor),
    "axi_mmu": Design(AxiMmuConfig, AxiMmu),
    "bridge": Design(TranslatingBridgeConfig, TranslatingBridge),
    "unit": Design(UnitConfig, Unit),
    "board": Design(BoardConfig, BoardUnit),
    "table_engine": Design(EngineConfig, TableEngine),
    "axi_engine": Design(AxiEngineConfig, AxiEngine),
    "mmu_engine": Design(MmuEngineConfig, MmuEngine),
}
"""Name to design of what stands between a memory port and memory, of MMU, bridge and unit with that in them, and the
table engine, alone, on AXI4, and there with an MMU."""
_ALL: Final = DESIGNS | BUS_DESIGNS

_PACKAGES: Final = Path(__file__).resolve().parent.parent
_AMARANTH: Final = Path(amaranth.__file__).resolve().parent.parent
_PYTHON: Final = Path(os.__file__).resolve().parent
_YOSYS_MINIMUM: Final = (0, 40)
"""The oldest Yosys that Amaranth's own back end takes."""


class FlatTop(Elaboratable):
    """A component with its members flattened to plain signals.

    A stream's payload of a struct layout becomes one port per field, named ``member__payload__field``; those of an AXI
    interface have AXI's names, ``member_awaddr``.

    Parameters
    ----------
    component : Component

    Attributes
    ----------
    ports : dict of str to (Flow, Signal)
        The ports beside clk and rst, in order.
    streams : dict of str to dict of str to str
        Path of each stream to its ports: "valid", "ready" where it has one, and "payload.FIELD".
    plain : dict of str to str
        Path of each other member, or field of one, to its port.
    """

    def __init__(self, component: Component) -> None:
        self.component = component
        self.ports: dict[str, tuple[Flow, Signal]] = {}
        self.streams: dict[str, dict[str, str]] = {}
        self.plain: dict[str, str] = {}
        self._pairs: list[tuple[Flow, Signal, Value]] = []
        streams: dict[tuple[str, ...], dict[str, str]] = {path: {} for path in _stream_paths(component.signature)}
        self.streams = {".".join(path): ports for path, ports in streams.items()}
        buses = {path[:-1] for path in streams if path[-1] in CHANNELS and _is_axi(component.signature, path[:-1])}
        for path, member, value in component.signature.flatten(component):
            if not member.is_port or not isinstance(Value.cast(value), Signal):
                continue  # an always-ready stream's constant
            parts = tuple(str(part) for part in path)
            whose = streams.get(parts[:-1])
            name = "__".join(parts)
            kinds = flat_fields(member.shape)
            for field, shape in ({None: Shape.cast(member.shape)} if kinds is None else kinds).items():
                port = name if field is None else f"{name}__{field}"
                if parts[:-2] in buses:
                    port = f"{'__'.join(parts[:-2])}_{parts[-2]}{parts[-1] if field is None else field}"
                self._add(port, member.flow, shape, Value.cast(value if field is None else value[field]))
                last = parts[-1] if field is None else f"{parts[-1]}.{field}"
                if whose is None:
                    self.plain[".".join((*parts[:-1], last))] = port
                else:
                    whose[last] = port

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


def _stream_paths(signature: Signature, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where streams are in a signature."""
    found: list[tuple[str, ...]] = []
    for name, member in signature.members.items():
        if member.is_signature:
            path = (*prefix, str(name))
            inside = member.signature
            found += [path] if isinstance(inside, stream.Signature) else _stream_paths(inside, path)
    return found


def _is_axi(signature: Signature, path: tuple[str, ...]) -> bool:
    """The member at `path` is an AXI4 or AXI4-Lite interface."""
    for name in path:
        signature = signature.members[name].signature
    return isinstance(signature, AxiSignature | AxiLiteSignature)


def design_of(config: Config) -> tuple[str, Design]:
    """Name and design of a configuration; TypeError when it is none's."""
    for name, design in _ALL.items():
        if isinstance(config, design.config):
            return name, design
    kinds = " or ".join(design.config.__name__ for design in _ALL.values())
    raise TypeError(f"config must be of {kinds}, not {config!r}")


def top_name(config: Config) -> str:
    """Name of the Verilog module of `config`'s top."""
    return f"ptewalk_{design_of(config)[0]}"


def flat_top(config: Config) -> FlatTop:
    """The flattened top of `config`."""
    return FlatTop(design_of(config)[1].component(config))


def _parameters(config: object) -> dict[str, Any]:
    """Every parameter of a configuration, those of configurations in it by their own names.

    A name that is taken already has that of its configuration before it: `bridge_fault_depth`.
    """
    found: dict[str, Any] = {}
    for parameter in fields(config):  # type: ignore[arg-type]
        value = getattr(config, parameter.name)
        inside = _parameters(value) if is_dataclass(value) else {parameter.name: value}
        found |= {f"{parameter.name}_{name}" if name in found else name: value for name, value in inside.items()}
    return found


def describe(config: Config) -> DesignDescription:
    """What `config`'s top looks like from outside."""
    top = flat_top(config)
    Fragment.get(top, None)  # Amaranth warns of what is never elaborated
    kinds = {Flow.In: "input", Flow.Out: "output"}
    ports = [PortDescription(name, "input", 1) for name in ("clk", "rst")]
    ports += [PortDescription(name, kinds[flow], len(signal)) for name, (flow, signal) in top.ports.items()]
    streams = []
    for path, found in top.streams.items():
        payload = {name.removeprefix("payload."): port for name, port in found.items() if name.startswith("payload")}
        direction = kinds[top.ports[found["valid"]][0]]
        streams.append(StreamDescription(path, direction, found["valid"], found.get("ready"), payload))
    name = design_of(config)[0]
    return DesignDescription(name, top_name(config), _parameters(config), tuple(ports), tuple(streams), top.plain)


def export_verilog(config: Config, *, flat: bool = False, name: str | None = None) -> str:
    """The Verilog text of `config`'s top, with the Python line of each statement in its `src` attributes.

    Combinational logic is written as continuous assignments. `always @*` would simulate wrongly: a block that assigns
    a constant reads nothing, so it never runs (Verilator), and several that write parts of one vector wake each other
    without end (Icarus 11).

    Parameters
    ----------
    flat : bool
        One optimised module without the design's inner names: an event-driven simulator runs it several times faster.
    name : str, optional
        Of the top module; by default `top_name`. Names of the modules below it begin with it.
    """
    return _verilog(export_rtlil(config, name=name), flat)


def _verilog(text: str, flat: bool = False) -> str:
    """Verilog of RTLIL."""
    yosys = find_yosys(lambda version: version >= _YOSYS_MINIMUM)
    passes = ["proc -norom", *(["flatten", "opt -full", "clean -purge"] if flat else [])]
    script = [
        "read_rtlil <<rtlil",
        text,
        "rtlil",
        *passes,
        "memory_collect",
        "write_verilog",
    ]
    verilog: str = yosys.run(["-q", "-"], "\n".join(script))
    return verilog


def export_rtlil(config: Config, *, name: str | None = None) -> str:
    """The RTLIL text of `config`'s top, as `export_verilog`; no path of a machine stands in its `src` attributes."""
    top = flat_top(config)
    return _rtlil(top, name or top_name(config), [port for _, port in top.ports.values()])


@dataclass(frozen=True)
class Covered:
    """A design with outputs that tell of its Python.

    Attributes
    ----------
    verilog : str
        Of its top, with an output `points.PORT`, and an output for each level.
    points : tuple of str
        Name of each bit of `points.PORT`: see `add_points`.
    levels : tuple of (str, str, int)
        Output, name and width in bits: see `add_levels`.
    """

    verilog: str
    points: tuple[str, ...]
    levels: tuple[tuple[str, str, int], ...]


def export_covered(config: Config) -> Covered:
    """`config`'s top with outputs that tell of its Python."""
    top = flat_top(config)
    fragment = elaborated(top)
    levels = add_levels(fragment)
    points, names = add_points(fragment)
    ports = [*(port for _, port in top.ports.values()), points, *(output for output, _ in levels)]
    verilog = _verilog(_rtlil(fragment, top_name(config), ports))
    return Covered(verilog, names, tuple((output.name, name, len(output)) for output, name in levels))


def _rtlil(top: Elaboratable | Fragment, name: str, ports: list[Signal]) -> str:
    """RTLIL without paths of this machine."""
    text: str = rtlil.convert(top, name=name, ports=ports)
    for folder in (_AMARANTH, _PACKAGES, _PYTHON):
        text = text.replace(f"{folder}/", "")
    return text
