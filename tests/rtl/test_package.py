"""What is handed over without Python, against numbers typed from the manual."""

import json
import re
from functools import partial

import pytest

from ptewalk.rtl.export import export_verilog
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.package import NUMBERS, package
from ptewalk.rtl.walker import WalkerConfig


def test_numbers() -> None:
    """[SDM 3A 4.7] for the error code; the rest is this project's own numbering, which others build on."""
    assert NUMBERS == {
        "access": {"read": 0, "write": 1, "rmw": 2, "fetch": 3, "probe": 4},
        "outcome": {"ok": 0, "page_fault": 1, "general_protection": 2, "bus_error": 3},
        "track": {"off": 0, "fault": 1, "native": 2},
        "control_bits": {"wp": 0, "nxe": 1, "smep": 2, "smap": 3, "pke": 4, "pks": 5, "pge": 6, "la57": 7},
        "invalidation": {"address": 0, "pcid": 1, "all": 2, "not_global": 3, "invlpg": 4},
        "wait": {"none": 0, "stores": 1, "all": 2},
        "error_code_bits": {"p": 0, "wr": 1, "us": 2, "rsvd": 3, "id": 4, "pk": 5},
    }


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["a", "my_mmu", "_x9"])
def test_names_begin_with_the_top(name: str) -> None:
    config = MmuConfig(WalkerConfig(levels=4, soft_dirty=False), fault_depth=8)
    made = package(config, partial(export_verilog, config), name=name, command="ptewalk export --design mmu")
    modules = re.findall(r"^module \\?([^ (]+)", made.verilog, re.M)
    assert modules[0] == made.top == name and len(modules) > 5
    assert all(module.startswith(f"{name}.") for module in modules[1:])
    assert made.verilog.startswith(f"// ptewalk {made.description['version']}: mmu, module {name}\n")
    assert "levels 4," in made.verilog and "fault_depth 8\n" in made.verilog
    assert "// made by: ptewalk export --design mmu\n" in made.verilog


@pytest.mark.thorough
def test_description() -> None:
    config = WalkerConfig(tag_bits=3, physical_bits=52)
    made = package(config, partial(export_verilog, config))
    described = json.loads(json.dumps(made.description))
    assert described["top"] == "ptewalk_walker"
    assert described["reset"] == {"port": "rst", "kind": "synchronous", "active": "high"}
    assert described["clock"] == {"port": "clk", "edge": "rising"}
    assert described["parameters"]["physical_bits"] == 52
    assert described["numbers"] == NUMBERS
    ports = {port["name"]: (port["direction"], port["width"]) for port in described["ports"]}
    assert ports["rst"] == ("input", 1)
    assert ports["requester__requests__payload__tag"] == ("input", 3)
    assert ports["memory__reads__payload__address"] == ("output", 52)


def test_template_names_every_port_once() -> None:
    config = MmuConfig()
    made = package(config, partial(export_verilog, config), name="x")
    pins = re.findall(r"^  \.(\w+)\((\w+)\),?$", made.template, re.M)
    assert [pin for pin, _ in pins] == [wire for _, wire in pins]
    assert [pin for pin, _ in pins] == [port["name"] for port in made.description["ports"]]
    assert "wire [63:0] requester__requests__payload__linear;  // input\n" in made.template
    assert "wire clk;  // input\n" in made.template
    assert "\nx mmu (\n" in made.template


@pytest.mark.parametrize("name", ["", "9x", "a b", "a-b", "a.b", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError) as error:
        package(WalkerConfig(), lambda name: "", name=name)
    assert str(error.value) == f"name must be a Verilog identifier (letters, digits, _), not {name!r}"
