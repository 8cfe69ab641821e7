"""Models that several tests of the co-simulation share: each is built once, and kept in the project's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.cosim.build import BuildDir, build
from ptewalk.cosim.simulators import select
from ptewalk.rtl.export import export_verilog
from ptewalk.rtl.walker import WalkerConfig

DOUBLE = Path(__file__).with_name("walker_double.v")


@pytest.fixture(scope="session")
def verilator_double() -> BuildDir:
    """The walker's double, with the batch level."""
    return build(select("verilator"), DOUBLE.read_text(), "ptewalk_walker", batch=True)


@pytest.fixture(scope="session")
def icarus_double() -> BuildDir:
    """The walker's double in Icarus."""
    return build(select("icarus"), DOUBLE.read_text(), "ptewalk_walker")


@pytest.fixture(scope="session")
def verilator_walker() -> BuildDir:
    """The walker, with the batch level."""
    return build(select("verilator"), export_verilog(WalkerConfig()), "ptewalk_walker", batch=True)
