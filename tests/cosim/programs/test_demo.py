"""The demonstration's runs: both ways report the same pages, and what differs or is lost is counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from ptewalk.cosim.programs.demo import GATEWARE, KERNEL, Frame, Passed, compared, watch
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.run import Settings
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.model.profiles import PROFILES

ONE, TWO = frozenset([(1, 7)]), frozenset([(1, 7), (1, 8)])


def passed(*reported: frozenset[tuple[int, int]], faults: int, marks: int, lost: int = 0) -> Passed:
    """A run with an epoch for each set of pages, and `lost` stores lost in each."""
    return Passed(tuple(Frame(pages, lost, faults, marks) for pages in reported), faults, marks, b"out", 0)


def test_compared() -> None:
    kernel, gateware = passed(ONE, TWO, faults=5, marks=0), passed(ONE, TWO, faults=2, marks=3)
    result = compared(kernel, gateware, latency=16, trap=1000)
    assert (result["epochs"], result["same"], result["reported"], result["lost"], result["output"]) == (
        2,
        2,
        3,
        0,
        True,
    )
    # A walk is 4 reads and 5 cycles, a fault two walks and the trap, a mark a swap: docs/mmu.md.
    assert result["kernel"] == {"faults": 5, "marks": 0, "tracking_cycles": 3 * (2 * (4 * 16 + 5) + 1000)}
    assert result["gateware"] == {"faults": 2, "marks": 3, "tracking_cycles": 3 * 17}


def test_what_differs_is_counted() -> None:
    kernel, gateware = passed(ONE, TWO, TWO, faults=5, marks=0), passed(ONE, ONE, faults=2, marks=3, lost=1)
    result = compared(kernel, replace(gateware, output=b"other"), latency=16, trap=1000)
    assert (result["epochs"], result["same"], result["lost"], result["output"]) == (3, 1, 2, False)


@pytest.mark.thorough
def test_each_epoch_is_told(have: Callable[[str], str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A shell's writes, by the model: the same pages both ways, and faults grow."""
    settings = Settings(PROFILES["linux-6.1"], seed=1, epoch=Every("syscalls", 4))
    command = [have("busybox"), "sh", "-c", "for i in 1 2 3; do echo $i; done"]
    told: list[Frame] = []
    kernel, gateware = (watch(settings, ModelWalker, command, track, told.append) for track in (KERNEL, GATEWARE))
    assert kernel.output == gateware.output == b"1\n2\n3\n" and kernel.status == 0
    assert tuple(told) == kernel.frames + gateware.frames and len(kernel.frames) >= 3
    result = compared(kernel, gateware, latency=16, trap=1000)
    assert result["same"] == result["epochs"] and not result["lost"] and result["reported"] > 10
    assert sys.maxsize > kernel.faults > gateware.faults
    assert [frame.faults for frame in told[:3]] == sorted(frame.faults for frame in told[:3])
