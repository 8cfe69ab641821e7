"""Recorded scenarios of every kernel, in every way to track, cycle by cycle on Icarus."""

import pytest

from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.runs.gateware import BuiltWalker
from ptewalk.cosim.runs.scenarios import replay_gateware
from ptewalk.cosim.simulate.find import detect

SCENARIOS = 12


@pytest.mark.slow
@pytest.mark.share(18)
@pytest.mark.parametrize("track", ["off", "fault", "native"])
@pytest.mark.parametrize("profile", KERNELS)
def test_twelve_on_icarus(profile: str, track: str) -> None:
    """As a cocotb test, clear_refs, pagemap and mremap by the table engine: each step agrees with kernel and model."""
    if "icarus" not in {found.name for found in detect()}:
        pytest.skip("icarus was not found")
    names = tuple(scenario.name for scenario in load([KERNELS[profile]])[:SCENARIOS])
    job = ReplayJob((str(KERNELS[profile]),), profile, track, names=names, seed=3)
    steps = sum(len(scenario.steps) for scenario in job.scenarios())
    (told,) = replay_gateware([job], "icarus", by=BuiltWalker.make("icarus"), protocol=True)
    assert (len(names), told["simulator"].split()[0], told["missing"]) == (SCENARIOS, "icarus", "")
    assert (told["agree"], told["differ"], told["skipped"]) == (steps, 0, 0) and steps > 70
    assert told["engine"]["clears"] >= 10 and told["engine"]["pagemaps"] > 80
