"""The bridge at protocol level on both simulators, with a manager and memories that others wrote."""

import pytest

from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.runs.bus import bus_bursts, bus_walks


@pytest.mark.slow
@pytest.mark.share(10)
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize(("simulator", "bits"), [("verilator", 64), ("icarus", 128)])
def test_random_bursts(simulator: str, bits: int, part: int) -> None:
    """2,000 transactions on each simulator with `--whole`, 200 without; soft-dirty is cleared between."""
    told = bus_bursts(200, part, bits=bits, simulator=simulator)
    assert told["failures"] == []
    assert told["transactions"] == 200 and told["refused"] >= 9
    assert told["clears"] >= 10 and told["cleared"] >= 5 and told["marks"] >= told["cleared"]
    assert told["judged"] >= 1000 and told["choices"] >= 1


@pytest.mark.slow
@pytest.mark.share(2)
@pytest.mark.parametrize(("simulator", "bits"), [("icarus", 128), ("verilator", 64)])
def test_random_bursts_with_a_dirty_log(simulator: str, bits: int) -> None:
    """Each mark has its record, in its place, and the end of each invalidation finds those of the stores before."""
    told = bus_bursts(200, 2, bits=bits, simulator=simulator, logs=True)
    assert told["failures"] == []
    assert told["records"] == told["marks"] >= 5 and told["waits"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "bits", "count"), [("verilator", 128, 100), ("icarus", 64, 60)])
def test_recorded_walks(simulator: str, bits: int, count: int) -> None:
    """As the engines answered: physical address or error code, and every word of the tables."""
    told = bus_walks(WALKS, count, 3, bits=bits, simulator=simulator)
    assert told["differ"] == []
    assert told["compared"] == count
    assert min(told[name] for name in ("OK", "PAGE_FAULT")) >= 20 and told["GENERAL_PROTECTION"] >= 1
