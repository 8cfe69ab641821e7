"""Rule R1 of cosim/relation.py: which stores the recorded kernels lose, and that nothing else may differ."""

import pytest

from ptewalk.cosim.recordings import KERNELS
from ptewalk.cosim.replay import ReplayJob, replay_gateware, replay_model

CLOSED = {"linux-seed": 0, "linux-3.11": 0, "linux-6.1": 17, "linux-6.12": 17}
"""Pages and steps after a store that the kernel lost: shared mappings' entries, writable and never marked.
By hand from the recordings: one page in t01 (3 steps), t04 (3) and t05 (3), and in t02 (8)."""


@pytest.mark.parametrize("track", ["fault", "native"])
@pytest.mark.parametrize("profile", KERNELS)
def test_lost_stores_are_closed(profile: str, track: str) -> None:
    result = replay_model(ReplayJob((str(KERNELS[profile]),), profile, track))
    assert (result["differ"], result["closed"]) == (0, CLOSED[profile])


@pytest.mark.parametrize("profile", KERNELS)
def test_a_plain_mmu_closes_nothing(profile: str) -> None:
    result = replay_model(ReplayJob((str(KERNELS[profile]),), profile, "off"))
    assert (result["differ"], result["closed"]) == (0, 0)


@pytest.mark.slow
def test_the_gateware_closes_the_same() -> None:
    jobs = [ReplayJob((str(KERNELS["linux-6.12"]),), "linux-6.12", track) for track in ("fault", "native")]
    for result in replay_gateware(jobs, None):
        assert (result["differ"], result["closed"]) == (0, CLOSED["linux-6.12"])
        assert result["counters"]["marks"] > 0
