"""How fast the gateware fills the TLB of a processor that runs a program, beside the golden model."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Final

from ptewalk.cosim.bench.lane import VerilatorLane
from ptewalk.cosim.bench.single import SingleWalker
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.user_memory import ProgramMmu, UserMemory
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.state.machine import CONTROL
from ptewalk.model.x86 import PAGE_SHIFT, Access, Control

__all__ = ["LEAST_RATIO", "fill_rates"]

LEAST_RATIO: Final = 0.7
"""Of the golden model's rate."""
_PAGES: Final = 1024
_ROUNDS: Final = 9


def fill_rates(lane: VerilatorLane) -> tuple[float, float, float]:
    """Fills a second of the golden model and of the gateware, and the median of the ratios, round by round.

    One process, whose pages are stored to, soft-dirty cleared, stored to again, and read: a page fault, a mark or
    neither comes with each fill. Both take turns on the same memory; time is the processor's.
    """
    arena = Arena(64 << 20)
    walkers = ModelWalker(arena.memory), SingleWalker(lane, arena.memory)
    mmus = [ProgramMmu(walker.walk) for walker in walkers]
    kernel = Kernel(
        PROFILES["linux-6.1"],
        track=Track.NATIVE,
        control=CONTROL & ~(1 << Control.PKE),
        mmu=lambda memory: mmus[0],
        memory=arena.memory,
        reuse_frames=True,
    )
    process = kernel.processes[0]
    first = kernel.base
    memories = [UserMemory(kernel, mmu, arena) for mmu in mmus]

    def turn(memory: UserMemory) -> None:
        for access in (Access.WRITE, Access.WRITE, Access.READ):
            for page in range(first, first + _PAGES):
                assert memory.fill(page << PAGE_SHIFT, access) is not None
            kernel.clear_refs(process.who, "4")

    pairs = []
    for number in range(_ROUNDS + 1):
        times = []
        for memory in memories:
            kernel.mmap(process, first, _PAGES, "rw", "anon", 0, [])  # in the place of the one before
            memory.switch(process)
            times.append(_seconds(lambda: turn(memory)))  # noqa: B023 - called at once
        if number:  # in the first round memory is new
            pairs.append(times)
    rates = [3 * _PAGES / median(column) for column in zip(*pairs, strict=True)]
    return rates[0], rates[1], median(model / gateware for model, gateware in pairs)


def _seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started
