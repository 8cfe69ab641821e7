"""The headers of the compiled lane: one definition of records, and pins by the description of a design."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench import records
from ptewalk.cosim.bench.headers import BATCH, lane_files, pins_header, records_header
from ptewalk.rtl.description import DesignDescription, PortDescription
from ptewalk.rtl.export import DESIGNS, describe
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig


def test_offsets_are_asserted() -> None:
    """Each field of each record, its place and the record's size."""
    text = records_header()
    # linear and root are 8 bytes; control, pkru, pkrs 4; the rest 1, but for pcid 2; tag is at a multiple of 4.
    for line in (
        "static_assert(sizeof(Request) == 48);",
        "static_assert(offsetof(Request, linear) == 0);",
        "static_assert(offsetof(Request, pkrs) == 24);",
        "static_assert(offsetof(Request, saved_dirty) == 29);",
        "static_assert(offsetof(Request, pcid) == 30);",
        "static_assert(offsetof(Request, keep) == 32);",
        "static_assert(offsetof(Request, tag) == 36);",
        "static_assert(offsetof(Event, new_) == 16);",
        "static_assert(offsetof(Response, code) == 16);",
        "static_assert(offsetof(Translation, pkey) == 20);",
    ):
        assert line in text, line
    dtypes = [records.REQUEST, records.RESPONSE, records.INTERFERENCE, records.EVENT, records.FAULT, records.WRITTEN]
    dtypes += [records.WALKED, records.TRANSLATION, BATCH]
    assert text.count("offsetof") == sum(len(dtype.names or ()) for dtype in dtypes)
    assert (
        "namespace Outcome { enum : uint32_t { OK = 0, PAGE_FAULT = 1, GENERAL_PROTECTION = 2, BUS_ERROR = 3 }; }"
        in text
    )


def with_input(design: DesignDescription, stream: str, field: str) -> DesignDescription:
    """The design with one more field in a stream into it."""
    port = PortDescription(f"{stream}__payload__{field}", "input", 4)
    streams = tuple(
        replace(found, fields={**found.fields, field: port.name}) if found.path == stream else found
        for found in design.streams
    )
    return replace(design, ports=(*design.ports, port), streams=streams)


def test_an_input_that_nobody_knows_is_named() -> None:
    design = describe(MmuConfig())
    with pytest.raises(ToolError, match=r"does not know field 'vmid' of contexts: .*entry in cosim/bench/records.py"):
        pins_header(with_input(design, "contexts", "vmid"))
    told = replace(design, plain={**design.plain, "o_translation.vmid": "o_translation__vmid"})
    with pytest.raises(ToolError, match="does not know field 'vmid' of translation"):
        pins_header(told)
    stranger = replace(design, ports=(*design.ports, PortDescription("enable", "input", 1)))
    with pytest.raises(ToolError, match="nothing drives input 'enable'"):
        lane_files(stranger)


def test_pins_follow_the_configuration() -> None:
    whole, bare = (
        pins_header(describe(config)) for config in (MmuConfig(), WalkerConfig(soft_dirty=False, trace=False))
    )
    for name, there in (("faults", "true"), ("retired", "true"), ("walked", "true"), ("drain", "true")):
        assert f"namespace {name} {{\nconstexpr bool present = {there};" in whole
        assert f"namespace {name} {{\nconstexpr bool present = false;" in bare
    untraced = pins_header(describe(MmuConfig(WalkerConfig(trace=False))))
    assert "namespace translation {\nconstexpr bool present = true;" in whole
    assert "r.soft_dirty = t.o_translation___05Fsoft_dirty;" in whole
    assert "namespace translation {\nconstexpr bool present = true;" in bare
    assert "r.soft_dirty = t.o_translation" not in bare
    assert "namespace translation {\nconstexpr bool present = false;" in untraced
    assert "contexts___05Fpayload___05Ftrack" in whole
    assert "contexts___05Fpayload___05Ftrack" not in bare


@pytest.mark.thorough
@pytest.mark.parametrize("name", DESIGNS)
def test_a_description_survives_json(name: str) -> None:
    design = describe(DESIGNS[name].config())
    again = DesignDescription.from_json(design.as_json())
    assert again == design
    assert (design.design, design.top) == (name, f"ptewalk_{name}")
    assert design.width(design.streams[0].fields["linear"]) == 64
    used = {port for found in design.streams for port in (found.valid, found.ready, *found.fields.values())}
    every = {port.name for port in design.ports}
    assert every == (used | set(design.plain.values()) | {"clk", "rst"}) - {None}
