"""What configures or describes a design cannot be changed behind its back: a build is named by it."""

import importlib
import inspect
from dataclasses import is_dataclass
from pathlib import Path

import ptewalk.rtl


def test_dataclasses_are_frozen() -> None:
    """They are hashed, too."""
    found = set()
    for path in Path(ptewalk.rtl.__path__[0]).glob("*.py"):
        module = importlib.import_module(f"ptewalk.rtl.{path.stem}")
        found |= {one for _, one in inspect.getmembers(module, inspect.isclass) if is_dataclass(one)}
    ours = {one.__name__: one for one in found if one.__module__.startswith("ptewalk.rtl.")}
    assert {"WalkerConfig", "MmuConfig", "DesignDescription", "PortDescription", "StreamDescription"} <= ours.keys()
    assert [name for name, one in ours.items() if not one.__dataclass_params__.frozen] == []  # type: ignore[attr-defined]
