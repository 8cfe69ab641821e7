"""Every width that a docstring of the gateware gives is that of the field or port, and every field and port has one."""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amaranth._unused import MustUse
from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from ptewalk.rtl.fault_unit import FaultUnit
from ptewalk.rtl.walker import WalkerConfig, WalkerRegisters

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {
    "physical_bits": 44,
    "tag_bits": 5,
    "id_bits": 3,
    "slot_bits": 2,
    "levels": 5,
    "soft_dirty": True,
    "pcids": True,
    "observe": True,
    "retires": True,
    "gigabyte_pages": True,
    "shift": 12,
    "sets": 8,
    "ways": 2,
    "small": (8, 2),
    "large": (4, 2),
    "index_bits": 3,
    "level": 2,
    "entries": 16,
    "ID_BITS": 2,
    "PAGE_BITS": 45,
    "count": 7,
    "walkers": 6,
    "width": 9,
    "depth": 4,
    "epoch_bits": 1,
    "most": 30,
    "reads": False,
}
"""Different ones where they are free, so that none stands for another."""


def documented(cls: type) -> Iterator[tuple[str, str]]:
    """Names and widths of a docstring's lines such as `a, b : Out(1), c : In(tag_bits + 1)`, where they are numbers."""
    for line in (cls.__doc__ or "").splitlines():
        if not re.fullmatch(r"\s+[a-z_]+[a-z_, ]* : .*", line):
            continue
        for listed, one in re.findall(
            r"([a-z_]+(?:, [a-z_]+)*) : ((?:\w+\([^)]*\)|\w+)(?:, (?:In|Out)\([^)]*\))*)", line
        ):
            names = listed.split(", ")
            texts = re.findall(r"(?:In|Out|unsigned)\(([^)]*)\)", one) or [one]
            for name, text in zip(names, texts if len(texts) > 1 else texts * len(names), strict=True):
                words = re.findall(r"\w+", text)
                if re.fullmatch(r"[\w +-]+", text) and all(word.isdigit() or word in SIZES for word in words):
                    yield name, text


@pytest.fixture(scope="module", autouse=True)
def nothing_goes_unused() -> Iterator[None]:
    """Amaranth warns of a component that goes without having been elaborated; these are only looked at."""
    yield
    for thing in gc.get_objects():
        if isinstance(thing, MustUse):
            thing._MustUse__used = True
    made.cache_clear()


@functools.cache
def made(cls: type) -> Any:
    """An instance with `SIZES`; it stays until `nothing_goes_unused`."""
    wanted = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    if "config" in wanted:
        given = {"count": SIZES["count"]} if "count" in wanted else {}
        return cls(WalkerConfig(), **given) if cls is WalkerRegisters or given else cls()
    given = {name: SIZES[name] for name in wanted if name in SIZES}
    if "payload" in wanted:
        given["payload"] = data.StructLayout({"x": 7})
    return cls(**given)


def widths(instance: Any) -> dict[str, int]:
    """Of fields, or of ports that are one signal."""
    if isinstance(instance, data.StructLayout):
        return {str(name): Shape.cast(field.shape).width for name, field in instance}
    signature = instance if isinstance(instance, wiring.Signature) else instance.signature
    return {name: Shape.cast(member.shape).width for name, member in signature.members.items() if member.is_port}


def classes() -> Iterator[type]:
    for path in sorted((ROOT / "rtl").glob("*.py")):
        module = importlib.import_module(f"ptewalk.rtl.{path.stem}")
        for cls in vars(module).values():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and issubclass(cls, data.StructLayout | wiring.Component | wiring.Signature):
                yield cls


def sizes_of(instance: Any) -> dict[str, Any]:
    """`SIZES`, or what the instance's configuration says."""
    config = WalkerConfig() if isinstance(instance, WalkerRegisters) else getattr(instance, "config", None)
    walker = getattr(config, "walker", config)
    names = ("physical_bits", "tag_bits", "levels")
    return SIZES if config is None else SIZES | {name: getattr(walker, name) for name in names}


@pytest.mark.parametrize("cls", list(classes()), ids=lambda cls: cls.__name__)
def test_widths(cls: type) -> None:
    instance = made(cls)
    real, said = widths(instance), dict(documented(cls))
    values = {name: eval(text, {}, sizes_of(instance)) for name, text in said.items() if name in real}
    assert values == {name: real[name] for name in values}


def test_enough_is_documented() -> None:
    counts = {
        cls.__name__: len([name for name, _ in documented(cls) if name in widths(made(cls))]) for cls in classes()
    }
    assert sum(counts.values()) >= 175, counts


@pytest.mark.thorough
def test_registers_of_a_fault_unit_are_shown_on_demand() -> None:
    assert inspect.signature(FaultUnit.__init__).parameters["observe"].default is False
    assert "o_registers" in made(FaultUnit).signature.members
