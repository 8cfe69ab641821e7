"""Rows of `ptewalk cycles` of the memory port on AXI4."""

import pytest

from ptewalk.cosim.runs.port_cycles import port_cycles
from ptewalk.rtl.bus.atomic import AtomicPortConfig
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


@pytest.mark.parametrize(("bits", "beats"), [(64, 2), (256, 1)])
def test_cycles_of_a_port_that_makes_atomic_transactions(bits: int, beats: int) -> None:
    """A read L + 1, a swap L + 3, and one more where W has two beats."""
    rows = port_cycles((1, 16), AtomicPortConfig(data_bits=bits))
    assert [row["name"] for row in rows] == ["port on AXI5: read", "port on AXI5: swap"] * 2
    assert [row["differs"] for row in rows] == [None] * 4
    for latency, read, swap in ((1, *rows[:2]), (16, *rows[2:])):
        assert (read["cycles"], read["target"], read["swaps"]) == (latency + 1, latency + 2, 0)
        assert (swap["cycles"], swap["target"], swap["swaps"]) == (latency + 2 + beats, latency + 4, 1)
