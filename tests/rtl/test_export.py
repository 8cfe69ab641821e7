"""The Verilog and RTLIL of each configuration: ports, names, and what soft_dirty=False leaves."""

import re

import pytest

from ptewalk.rtl.export import Config, export_rtlil, export_verilog, top_name
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

MEMORY_PORT = {
    "memory__reads__payload__address": 40,
    "memory__reads__payload__id": 2,
    "memory__reads__valid": 1,
    "memory__reads__ready": 1,
    "memory__data__payload__value": 64,
    "memory__data__payload__error": 1,
    "memory__data__payload__id": 2,
    "memory__data__valid": 1,
    "memory__swaps__payload__address": 40,
    "memory__swaps__payload__old": 64,
    "memory__swaps__payload__new": 64,
    "memory__swaps__payload__id": 2,
    "memory__swaps__valid": 1,
    "memory__swaps__ready": 1,
    "memory__swapped__payload__done": 1,
    "memory__swapped__payload__error": 1,
    "memory__swapped__payload__id": 2,
    "memory__swapped__valid": 1,
}
REQUESTER = {
    "requester__requests__payload__linear": 64,
    "requester__requests__payload__access": 3,
    "requester__requests__payload__user": 1,
    "requester__requests__payload__implicit": 1,
    "requester__requests__payload__ac": 1,
    "requester__requests__payload__tag": 8,
    "requester__requests__valid": 1,
    "requester__requests__ready": 1,
    "requester__responses__payload__outcome": 2,
    "requester__responses__payload__code": 16,
    "requester__responses__payload__physical": 40,
    "requester__responses__payload__level": 3,
    "requester__responses__payload__pwt": 1,
    "requester__responses__payload__pcd": 1,
    "requester__responses__payload__pat": 1,
    "requester__responses__payload__tag": 8,
    "requester__responses__valid": 1,
    "requester__responses__ready": 1,
}
CONTEXTS = {
    "contexts__payload__root": 28,
    "contexts__payload__control": 8,
    "contexts__payload__pkru": 32,
    "contexts__payload__pkrs": 32,
    "contexts__valid": 1,
    "contexts__ready": 1,
}
TRACKING = {"contexts__payload__track": 2, "contexts__payload__saved_dirty": 1}
WRITTEN = {
    "o_written__payload__linear": 64,
    "o_written__payload__tag": 8,
    "o_written__payload__level": 3,
    "o_written__payload__address": 40,
    "o_written__payload__old": 64,
    "o_written__payload__new": 64,
    "o_written__payload__done": 1,
    "o_written__payload__error": 1,
    "o_written__valid": 1,
}
TRANSLATION = {
    "o_translation__frame": 28,
    "o_translation__level": 3,
    "o_translation__rw": 1,
    "o_translation__us": 1,
    "o_translation__xd": 1,
    "o_translation__pkey": 4,
    "o_translation__g": 1,
    "o_translation__d": 1,
    "o_translation__soft_dirty": 1,
    "o_translation__pwt": 1,
    "o_translation__pcd": 1,
    "o_translation__pat": 1,
    "o_translation__address": 40,
}
COMMON = {"clk": 1, "rst": 1} | REQUESTER | CONTEXTS | TRACKING | MEMORY_PORT | WRITTEN


def ports(config: Config) -> dict[str, int]:
    """Port to width, from the exported text's top module."""
    module = re.search(rf"^module \\{top_name(config)}\n(.*?)^end$", export_rtlil(config), re.S | re.M)
    assert module
    found = re.findall(r"^  wire (?:width (\d+) )?(?:input|output) \d+ +\\(\S+)$", module[1], re.M)
    return {name: int(width or 1) for width, name in found}


def test_ports_of_the_walker() -> None:
    assert ports(WalkerConfig(trace=False)) == COMMON | TRANSLATION


@pytest.mark.thorough
def test_ports_of_the_trace() -> None:
    extra = ports(WalkerConfig()).keys() - ports(WalkerConfig(trace=False)).keys()
    fields = ("linear", "outcome", "code", "physical", "level", "pwt", "pcd", "pat", "tag")
    assert extra == {"o_walked__valid"} | {f"o_walked__payload__{name}" for name in fields}
    of_mmu = ports(MmuConfig()).keys() - ports(MmuConfig(WalkerConfig(trace=False))).keys()
    assert of_mmu == extra | TRANSLATION.keys()


@pytest.mark.thorough
@pytest.mark.parametrize("config", [WalkerConfig(observe=True), MmuConfig(WalkerConfig(observe=True))])
def test_registers_are_a_port_with_observe_only(config: Config) -> None:
    prefix = "o_registers__" if isinstance(config, WalkerConfig) else "o_walker__"
    found = {name.removeprefix(prefix): width for name, width in ports(config).items() if name.startswith(prefix)}
    assert found.items() >= {"state": 3, "at": 5, "entry": 64, "here": 40, "settled": 1}.items()
    plain = ports(WalkerConfig()) | ports(MmuConfig())
    assert not [name for name in plain if name.startswith(("o_registers", "o_walker", "o_fault_unit"))]


def test_ports_of_the_mmu() -> None:
    extra = ports(MmuConfig(WalkerConfig(trace=False)))
    for name in COMMON:
        extra.pop(name)
    assert extra == {
        "requester__retired__payload__tag": 8,
        "requester__retired__valid": 1,
        "supervisor__faults__payload__linear": 64,
        "supervisor__faults__payload__code": 16,
        "supervisor__faults__payload__tag": 8,
        "supervisor__faults__valid": 1,
        "supervisor__faults__ready": 1,
        "supervisor__drain": 1,
        "supervisor__drained": 1,
        "supervisor__granted": 9,
        "supervisor__status__fault_overflow": 1,
        "supervisor__status__tag_reused": 1,
        "supervisor__status__stray_retirement": 1,
        "supervisor__clear__fault_overflow": 1,
        "supervisor__clear__tag_reused": 1,
        "supervisor__clear__stray_retirement": 1,
        "marks": 32,
        "mends": 32,
        "delivered_faults": 32,
        "lost_faults": 32,
    }


@pytest.mark.thorough
@pytest.mark.parametrize("config", [WalkerConfig(soft_dirty=False), MmuConfig(WalkerConfig(soft_dirty=False))])
def test_no_trace_of_soft_dirty(config: Config) -> None:
    """CONFIG_MEM_SOFT_DIRTY=n: no port, no signal and no register is named after tracking."""
    names = re.findall(r"^ *wire .*\\(\S+)$", export_rtlil(config), re.M)
    assert len(names) > 50
    tracking = re.compile("soft|dirty|track|mend|mark|arm")
    assert not [name for name in names if tracking.search(name)]
    with_it = WalkerConfig() if isinstance(config, WalkerConfig) else MmuConfig()
    assert [name for name in re.findall(r"^ *wire .*\\(\S+)$", export_rtlil(with_it), re.M) if tracking.search(name)]


def test_widths_follow_the_parameters() -> None:
    found = ports(WalkerConfig(physical_bits=52, tag_bits=3))
    assert found["contexts__payload__root"] == found["o_translation__frame"] == 40
    assert found["memory__reads__payload__address"] == found["requester__responses__payload__physical"] == 52
    assert found["requester__requests__payload__tag"] == found["requester__responses__payload__tag"] == 3


@pytest.mark.thorough
@pytest.mark.parametrize("config", [WalkerConfig(), MmuConfig()])
def test_verilog(config: Config) -> None:
    """One top of the promised name; no block that a simulator might never run."""
    text = export_verilog(config)
    assert re.findall(rf"^module {top_name(config)}\(", text, re.M) == [f"module {top_name(config)}("]
    assert "always @*" not in text
    assert "always_comb" not in text


def test_same_text_every_time() -> None:
    assert export_rtlil(WalkerConfig()) == export_rtlil(WalkerConfig())


def test_names() -> None:
    assert top_name(WalkerConfig()) == "ptewalk_walker"
    assert top_name(MmuConfig()) == "ptewalk_mmu"
    kinds = (
        "WalkerConfig or MmuConfig or CachingMmuConfig or LockRamConfig or ExclusivePortConfig or AtomicPortConfig or "
        "MonitorConfig or AxiMmuConfig or TranslatingBridgeConfig or UnitConfig or BoardConfig or EngineConfig or "
        "AxiEngineConfig or MmuEngineConfig"
    )
    with pytest.raises(TypeError, match=rf"^config must be of {kinds}, not 'walker'$"):
        top_name("walker")  # type: ignore[arg-type]


def test_no_path_of_a_machine_is_exported() -> None:
    text = export_verilog(WalkerConfig())
    places = [line for line in text.splitlines() if "src = " in line]
    assert len(places) > 100
    assert not [line for line in places if 'src = "/' in line or "site-packages" in line]
