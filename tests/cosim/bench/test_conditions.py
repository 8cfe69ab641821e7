"""What is drawn: how often channels stall and accesses are refused, and how long they take."""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.conditions import Conditions, Pattern, Stalls
from ptewalk.cosim.bench.records import Channel

DRAWS = 4000


@pytest.mark.parametrize("channel", [Channel.REQUESTS, Channel.RESPONSES, Channel.READS, Channel.SWAPS, Channel.FAULTS])
@pytest.mark.parametrize("chance", [0.0, 0.1, 0.75])
def test_a_channel_stalls_as_often_as_asked(channel: Channel, chance: float) -> None:
    """And no other does."""
    stalls = Stalls(**{channel.name.lower(): chance})
    pattern = Pattern(Conditions(stalls=stalls, seed=3))
    seen = {one: sum(pattern.happens(one, number) for number in range(DRAWS)) / DRAWS for one in Channel}
    assert abs(seen.pop(channel) - chance) < 0.03
    assert not any(seen.values())


def test_bus_errors_and_drains() -> None:
    pattern = Pattern(Conditions(errors=0.25, drains=0.5, seed=4))
    seen = {one: sum(pattern.happens(one, number) for number in range(DRAWS)) / DRAWS for one in Channel}
    assert abs(seen.pop(Channel.ERRORS) - 0.25) < 0.03 and abs(seen.pop(Channel.DRAINS) - 0.5) < 0.03
    assert not any(seen.values())


@pytest.mark.parametrize("spread", [0, 1, 5, 20])
def test_every_latency_up_to_the_spread(spread: int) -> None:
    pattern = Pattern(Conditions(seed=5))
    assert {pattern.extra(Channel.READS, number, spread) for number in range(DRAWS)} == set(range(spread + 1))


def test_another_seed_draws_otherwise() -> None:
    first, second = (
        [Pattern(Conditions(seed=seed)).draw(Channel.READS, number) for number in range(8)] for seed in (6, 7)
    )
    assert first != second and len({*first, *second}) == 16
