"""The Verilog and RTLIL of each configuration: ports, names, and what soft_dirty=False leaves."""

import re

import pytest

from ptewalk.rtl.export import Config, export_rtlil, export_verilog, top_name
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

MEMORY_PORT = {
    "o_reads__payload__address": 40,
    "o_reads__valid": 1,
    "o_reads__ready": 1,
    "i_data__payload__value": 64,
    "i_data__payload__error": 1,
    "i_data__valid": 1,
    "o_swaps__payload__address": 40,
    "o_swaps__payload__old": 64,
    "o_swaps__payload__new": 64,
    "o_swaps__valid": 1,
    "o_swaps__ready": 1,
    "i_swapped__payload__done": 1,
    "i_swapped__payload__error": 1,
    "i_swapped__valid": 1,
}
REQUESTER = {
    "i_requests__payload__linear": 64,
    "i_requests__payload__access": 3,
    "i_requests__payload__user": 1,
    "i_requests__payload__implicit": 1,
    "i_requests__payload__ac": 1,
    "i_requests__payload__tag": 8,
    "i_requests__valid": 1,
    "i_requests__ready": 1,
    "o_responses__payload__outcome": 2,
    "o_responses__payload__code": 16,
    "o_responses__payload__physical": 40,
    "o_responses__payload__level": 3,
    "o_responses__payload__pwt": 1,
    "o_responses__payload__pcd": 1,
    "o_responses__payload__pat": 1,
    "o_responses__payload__tag": 8,
    "o_responses__valid": 1,
    "o_responses__ready": 1,
}
STATE = {"clk": 1, "rst": 1, "root": 28, "control": 8, "pkru": 32, "pkrs": 32}
TRACKING = {"track": 2, "saved_dirty": 1}


def ports(config: Config) -> dict[str, int]:
    """Port to width, from the exported text's top module."""
    module = re.search(rf"^module \\{top_name(config)}\n(.*?)^end$", export_rtlil(config), re.S | re.M)
    assert module
    found = re.findall(r"^  wire (?:width (\d+) )?(?:input|output) \d+ +\\(\S+)$", module[1], re.M)
    return {name: int(width or 1) for width, name in found}


def test_ports_of_the_walker() -> None:
    assert ports(WalkerConfig(trace=False)) == STATE | REQUESTER | MEMORY_PORT | TRACKING


def test_ports_of_the_trace() -> None:
    extra = ports(WalkerConfig()).keys() - ports(WalkerConfig(trace=False)).keys()
    assert extra == {"o_trace__valid"} | {
        f"o_trace__payload__{name}"
        for name in (
            *("kind", "linear", "tag", "level", "outcome", "code", "physical", "address", "old", "new", "done"),
        )
    }


def test_ports_of_the_mmu() -> None:
    extra = ports(MmuConfig(WalkerConfig(trace=False)))
    for name in STATE | REQUESTER | MEMORY_PORT | TRACKING:
        extra.pop(name)
    assert extra == {
        "o_faults__payload__linear": 64,
        "o_faults__payload__code": 16,
        "o_faults__payload__tag": 8,
        "o_faults__valid": 1,
        "o_faults__ready": 1,
        "i_retired__payload__tag": 8,
        "i_retired__valid": 1,
        "i_drain": 1,
        "o_drained": 1,
        "o_granted": 9,
        "marks": 32,
        "mends": 32,
        "delivered_faults": 32,
    }


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
    assert found["root"] == 40
    assert found["o_reads__payload__address"] == found["o_responses__payload__physical"] == 52
    assert found["i_requests__payload__tag"] == found["o_responses__payload__tag"] == 3


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
    with pytest.raises(TypeError, match=r"^config must be a WalkerConfig or an MmuConfig, not 'walker'$"):
        top_name("walker")  # type: ignore[arg-type]


def test_no_path_of_a_machine_is_exported() -> None:
    text = export_verilog(WalkerConfig())
    places = [line for line in text.splitlines() if "src = " in line]
    assert len(places) > 100
    assert not [line for line in places if 'src = "/' in line or "site-packages" in line]
