"""Rows of `ptewalk cycles` of the memory port on AXI4."""

import pytest

from ptewalk.cosim.runs.port_cycles import port_cycles
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig


@pytest.mark.thorough
@pytest.mark.parametrize("bits", [64, 512])
def test_cycles_of_the_port(bits: int) -> None:
    """A read L + 1, one less than its target; a linked swap L + 3 and another 2L + 4, as many as theirs."""
    rows = port_cycles((1, 4, 16, 40), ExclusivePortConfig(data_bits=bits))
    assert [row["differs"] for row in rows] == [None] * 12
    for latency, read, linked, unlinked in zip((1, 4, 16, 40), rows[::3], rows[1::3], rows[2::3], strict=True):
        assert [row["name"].partition(": ")[2] for row in (read, linked)] == ["read", "swap, linked"]
        assert (read["cycles"], read["target"], read["swaps"]) == (latency + 1, latency + 2, 0)
        assert (linked["cycles"], linked["target"], linked["swaps"]) == (latency + 3, latency + 3, 1)
        assert (unlinked["cycles"], unlinked["target"]) == (2 * latency + 4, 2 * latency + 4)


def test_a_port_without_links_is_late() -> None:
    late = [row["name"] for row in port_cycles((4,), ExclusivePortConfig(link=False)) if row["cycles"] > row["target"]]
    assert late == ["port on AXI: swap, linked"]
