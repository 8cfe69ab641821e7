"""A process told entry by entry: the same as by arrays."""

from __future__ import annotations

import random
import zlib
from dataclasses import astuple

import numpy as np
import pytest

from ptewalk.cosim.formats.samples import KERNELS as RECORDED
from ptewalk.cosim.formats.scenarios import load
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario import few, runs
from ptewalk.model.scenario.contents import checksum
from ptewalk.model.scenario.few import FewRules
from ptewalk.model.scenario.format import boots_with_v1
from ptewalk.model.scenario.numbering import FrameNumbers
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.snapshot import Recorder
from ptewalk.model.scenario.verbs import Unsupported
from ptewalk.model.state.machine import Process

SWAPLESS = ("linux-seed", "linux-3.11", "linux-6.1")
"""Whose sample has no swapped page."""


class ByArrays(FewRules):
    """Nobody has few."""

    def of(self, process: Process) -> None:
        return None


@pytest.mark.thorough
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_states(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Two recorders beside each other on one machine, step by step; what pages contain is compared too."""
    told: set[str] = set()
    few_steps = many_steps = 0
    of = FewRules.of

    def counted(rules: FewRules, process: Process) -> few.Few | None:
        nonlocal few_steps, many_steps
        found = of(rules, process)
        few_steps, many_steps = few_steps + (found is not None), many_steps + (found is None)
        return found

    monkeypatch.setattr(FewRules, "of", counted)
    for scenario in load([RECORDED[name]]):
        run = Replay(scenario, NAMED[name][0], pagemap_v2=not boots_with_v1(scenario.name))
        by_arrays = Recorder(run.kernel, raw_tables=True)
        monkeypatch.setattr(by_arrays, "_few", ByArrays(run.kernel))
        run._recorder.take()
        by_arrays.take()
        for _ in scenario.steps:
            try:
                run.step()
            except Unsupported:
                break
            one, other = run._recorder.take(contents=True), by_arrays.take(contents=True)
            assert {who: astuple(state) for who, state in one.items()} == {
                who: astuple(state) for who, state in other.items()
            }, scenario.name
            told.update(letter for state in one.values() for page in state.pages for letter in page[2] + page[3])
    assert few_steps > 3 * many_steps > 0
    assert told >= ({"P", "a"} if name in SWAPLESS else {"P", "S", "a"})


@pytest.mark.parametrize("soft_dirty", [False, True])
def test_a_machine_that_reports_by_stores(soft_dirty: bool) -> None:
    """What it tells is not in the entries; and a kernel without soft-dirty."""
    dirty = set()
    for scenario in load([RECORDED["linux-6.12"]])[:20]:
        run = Replay(scenario, NAMED["linux-6.12"][0], exact=soft_dirty, soft_dirty=soft_dirty)
        by_arrays = Recorder(run.kernel, raw_tables=True)
        by_arrays._few = ByArrays(run.kernel)
        for _ in scenario.steps:
            seen = run.step().state
            assert {who: astuple(state) for who, state in seen.items()} == {
                who: astuple(state) for who, state in by_arrays.take(contents=True).items()
            }
            dirty.update("D" in page[2] for state in seen.values() for page in state.pages)
    assert dirty == ({False, True} if soft_dirty else {False})


def test_runs_are_those_of_arrays() -> None:
    """Any pages, keys and numbers; step by step as greedy."""
    rng = random.Random(4)
    lengths = set()
    for _ in range(2000):
        count = rng.randrange(1, 12)
        pages = np.cumsum([rng.choice((1, 1, 1, 1, 2)) for _ in range(count)])
        keys = np.array([rng.choice((7, 7, 7, 8)) for _ in range(count)])
        numbers = np.cumsum([rng.choice((0, 0, 1, 1, 1, 2, -1)) for _ in range(count)])
        due = runs.group(pages, (keys,), numbers)
        found = few.group(list(zip(pages.tolist(), keys.tolist(), numbers.tolist(), strict=True)))
        assert found == due
        lengths.update(last - first for first, last, _ in due)
    assert lengths >= {1, 2, 3, 4}


def test_numbers_of_few_and_of_many_frames_go_on() -> None:
    """Frames keep their numbers however the steps before were told."""
    rng = random.Random(5)
    mixed, arrays = FrameNumbers(), FrameNumbers()
    alive = list(range(16, 40))
    fresh = 40
    for _ in range(200):
        gone = alive.pop(rng.randrange(len(alive)))
        alive += [fresh, fresh + 1]
        taken = {fresh: gone} if rng.random() < 0.3 else {}
        fresh += 2
        if len(alive) > 60:
            alive = rng.sample(alive, 20)
        order = [rng.choice(alive) for _ in range(rng.randrange(30))]
        due = arrays.number(np.array(order, np.int64), fresh, taken)
        if rng.random() < 0.5:
            told = mixed.number_few(order, taken)
            assert {frame: int(due[frame]) for frame in order} == told
        else:
            assert mixed.number(np.array(order, np.int64), fresh, taken).tolist() == due.tolist()
        assert mixed.owners() == arrays.owners()


def test_only_zeros_are_told_as_zeros() -> None:
    """The second page is the generator of the checksum, and has that of a page of zeros."""
    page = np.zeros(512, np.uint64)
    assert checksum(page) == -1
    page[7] = 0x1DB710641
    assert checksum(page) == zlib.crc32(page.data) == zlib.crc32(bytes(4096))
    page[7] = 1
    assert checksum(page) == zlib.crc32(page.data) != zlib.crc32(bytes(4096))
