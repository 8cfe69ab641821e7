"""Every bit position that the gateware uses, typed by hand from the manual and the kernel's headers."""

import pytest
from amaranth.hdl import Shape

from ptewalk.rtl.entry import EntryLayout
from ptewalk.rtl.layouts import (
    ContextLayout,
    ControlLayout,
    EntryWrittenLayout,
    FaultLayout,
    RequestLayout,
    ResponseLayout,
    StatusLayout,
    SwapLayout,
    TranslationLayout,
    WalkedLayout,
    flat_fields,
)

# [SDM 3A tables 4-14 to 4-20]; bits 9, 10, 11, 52 and 58 are software's.
ENTRY = {
    "p": 0,
    "rw": 1,
    "us": 2,
    "pwt": 3,
    "pcd": 4,
    "a": 5,
    "d": 6,
    "ps": 7,
    "pat": 7,
    "g": 8,
    "special": 9,
    "uffd_wp": 10,
    "soft_dirty": 11,
    "pat_large": 12,
    "arm": 52,
    "saved_dirty": 58,
    "pkey": 59,
    "xd": 63,
}


def places(layout: object) -> dict[str, tuple[int, int]]:
    """Field to (lowest bit, width)."""
    return {str(name): (field.offset, Shape.cast(field.shape).width) for name, field in layout}  # type: ignore[attr-defined]


def test_entry() -> None:
    assert EntryLayout().size == 64
    assert places(EntryLayout()) == {name: (low, 4 if name == "pkey" else 1) for name, low in ENTRY.items()}


def test_control() -> None:
    names = ("wp", "nxe", "smep", "smap", "pke", "pks", "pge", "la57")
    assert places(ControlLayout()) == {name: (bit, 1) for bit, name in enumerate(names)}
    assert ControlLayout().size == 8


@pytest.mark.parametrize("tag_bits", [1, 8, 32])
def test_request(tag_bits: int) -> None:
    assert {name: width for name, (_, width) in places(RequestLayout(tag_bits)).items()} == {
        "linear": 64,
        "access": 3,
        "user": 1,
        "implicit": 1,
        "ac": 1,
        "tag": tag_bits,
    }


@pytest.mark.parametrize(("physical_bits", "tag_bits"), [(32, 1), (40, 8), (52, 32)])
def test_response(physical_bits: int, tag_bits: int) -> None:
    assert {name: width for name, (_, width) in places(ResponseLayout(physical_bits, tag_bits)).items()} == {
        "outcome": 2,
        "code": 16,
        "physical": physical_bits,
        "level": 3,
        "pwt": 1,
        "pcd": 1,
        "pat": 1,
        "tag": tag_bits,
    }


@pytest.mark.parametrize("tag_bits", [1, 32])
def test_fault_and_swap(tag_bits: int) -> None:
    assert {name: width for name, (_, width) in places(FaultLayout(tag_bits)).items()} == {
        "linear": 64,
        "code": 16,
        "tag": tag_bits,
    }
    assert widths(SwapLayout(36, 2)) == {"address": 36, "old": 64, "new": 64, "id": 2}


def widths(layout: object) -> dict[str, int]:
    """Field to width."""
    return {name: width for name, (_, width) in places(layout).items()}


@pytest.mark.parametrize("physical_bits", [32, 52])
def test_context(physical_bits: int) -> None:
    plain = {"root": physical_bits - 12, "control": 8, "pkru": 32, "pkrs": 32}
    assert widths(ContextLayout(physical_bits, soft_dirty=False)) == plain
    assert widths(ContextLayout(physical_bits, soft_dirty=True)) == plain | {"track": 2, "saved_dirty": 1}


@pytest.mark.parametrize("physical_bits", [32, 52])
def test_translation(physical_bits: int) -> None:
    flags = {"rw": 1, "us": 1, "xd": 1, "pkey": 4, "g": 1, "d": 1, "pwt": 1, "pcd": 1, "pat": 1}
    plain = {"frame": physical_bits - 12, "level": 3, "address": physical_bits} | flags
    assert widths(TranslationLayout(physical_bits, soft_dirty=False)) == plain
    assert widths(TranslationLayout(physical_bits, soft_dirty=True)) == plain | {"soft_dirty": 1}


def test_events() -> None:
    common = {"linear": 64, "tag": 8, "level": 3}
    assert widths(EntryWrittenLayout(40, 8)) == common | {"address": 40, "old": 64, "new": 64, "done": 1, "error": 1}
    assert widths(WalkedLayout(40, 8)) == common | {
        "outcome": 2,
        "code": 16,
        "physical": 40,
        "pwt": 1,
        "pcd": 1,
        "pat": 1,
    }
    assert widths(StatusLayout()) == {"fault_overflow": 1, "tag_reused": 1, "stray_retirement": 1}


def test_flat_fields() -> None:
    """A struct has fields to flatten; an entry, whose fields overlap, has not."""
    assert flat_fields(FaultLayout(8)) == {"linear": Shape(64), "code": Shape(16), "tag": Shape(8)}
    assert flat_fields(EntryLayout()) is None
    assert flat_fields(Shape(3)) is None
