"""Runs of entries, joined by hand."""

import pytest

from ptewalk.model.scenario.runs import Runs, join_entries


def entry(
    page: int, frame: int | None, count: int = 1, step: int = 0, level: int = 1, flags: str = "67"
) -> list[object]:
    """A run of leaves as `ptes` of the format has it."""
    return [page, count, level, flags, "67.67.67", frame, step]


@pytest.mark.parametrize(
    "runs, joined",
    [
        ([entry(511, 7), entry(512, 8)], [entry(511, 7, 2, 1)]),
        ([entry(511, 7), entry(512, 7)], [entry(511, 7, 2, 0)]),
        ([entry(510, 7, 2, 1), entry(512, 9)], [entry(510, 7, 3, 1)]),
        ([entry(510, 7, 2, 1), entry(512, 9, 2, 1)], [entry(510, 7, 4, 1)]),
        ([entry(510, 7, 2, 0), entry(512, 7, 2, 0)], [entry(510, 7, 4, 0)]),
        ([entry(511, 7), entry(512, 8, 2, 1), entry(514, 10)], [entry(511, 7, 4, 1)]),
    ],
)
def test_what_goes_on_is_one_run(runs: Runs, joined: Runs) -> None:
    assert join_entries(runs) == joined


@pytest.mark.parametrize(
    "runs",
    [
        [entry(510, 7), entry(512, 8)],
        [entry(511, 7), entry(512, 9)],
        [entry(511, 7), entry(512, 6)],
        [entry(511, 7), entry(512, 8, flags="65")],
        [entry(0, 512, level=2), entry(1, 513, level=2)],
        [entry(511, None), entry(512, 8)],
        [entry(511, 7), entry(512, None)],
        [entry(510, 7, 2, 1), entry(512, 10)],
        [entry(510, 7, 2, 0), entry(512, 8, 2, 1)],
        [entry(511, 7), entry(512, 8, 2, 0)],
    ],
)
def test_what_does_not_go_on_stays_apart(runs: Runs) -> None:
    assert join_entries([list(run) for run in runs]) == runs
