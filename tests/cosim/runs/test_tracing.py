"""The lane of a trace counts the cycles that the protocol level has."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptewalk.cosim.bench.records import REQUEST
from ptewalk.cosim.bench.trace_lane import KIND_SHIFT, OUTSTANDING, TraceLane
from ptewalk.cosim.runs.tracing import recited, trace_library
from ptewalk.model import PAGE, Machine
from ptewalk.model.access import state_of
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request
from ptewalk.model.x86 import PAGE_SHIFT, Access

pytestmark = pytest.mark.slow
COUNT = 700


def sample() -> tuple[Machine, list[Request]]:
    """A task with forty pages, half of them written since the clear, and accesses to them in runs."""
    machine = Machine("linux-6.1", track="native")
    task = machine.spawn()
    at = task.mmap(40 * PAGE, "rw")
    task.write(at, 40 * PAGE)
    task.clear_refs(4)
    task.write(at, 20 * PAGE)
    rng = random.Random("trace")
    asked: list[Request] = []
    while len(asked) < COUNT:
        page, access = rng.randrange(40), rng.choice((Access.READ, Access.READ, Access.WRITE))
        asked += [Request(at + page * PAGE + rng.randrange(PAGE), access) for _ in range(rng.randint(1, 9))]
    return machine, asked[:COUNT]


@pytest.mark.parametrize(("design", "latency"), [("mmu-small", 16), ("mmu", 4), ("mmu-fast", 4), ("mmu-8walkers", 16)])
def test_cycles_are_the_protocol_levels(design: str, latency: int) -> None:
    machine, asked = sample()
    kernel = machine.kernel
    state = state_of(kernel, kernel.processes[0])
    memory: SparseMemory = kernel.memory.copy()
    words = {
        frame << PAGE_SHIFT | place << 3: int(memory.frame(frame)[place])
        for frame in memory.frames()
        for place in np.flatnonzero(memory.frame(frame)).tolist()
    }
    told = recited(words, state, asked, latency=latency, design_name=design)
    assert told["problems"] == [] and len(told["timings"]) == COUNT

    lane = TraceLane(trace_library(design), memory, latency=latency)
    accesses = np.array([int(one.access) << KIND_SHIFT | one.linear for one in asked], np.uint64)
    context = np.zeros(1, REQUEST)
    context["root"], context["control"], context["track"] = state.root >> PAGE_SHIFT, state.control, int(state.track)
    timings = np.zeros((COUNT, 2), np.uint64)
    answered = lane.run(accesses, context=context, timings=timings)
    counts = lane.counts()
    lane.close()
    assert (answered.done, answered.stopped) == (COUNT, False)
    first = told["timings"][0][0]
    assert (timings - timings[0, 0]).tolist() == [[one - first for one in pair] for pair in told["timings"]]
    assert counts.walks + counts.hits[1] == COUNT == counts.answered
    assert (
        counts.marks == counts.swaps == len({one.linear >> PAGE_SHIFT for one in asked if one.access}) - marked(asked)
    )
    assert set(counts.walks_of_reads) == ({4} if design == "mmu-small" else {1, 4})
    flying = [sum(a <= one[0] < b for a, b in timings.tolist()) for one in timings.tolist()]
    assert max(flying) == OUTSTANDING


def marked(asked: list[Request]) -> int:
    """Pages of the first twenty that are stored to: they are marked already."""
    low = min(one.linear >> PAGE_SHIFT for one in asked)
    return len({one.linear >> PAGE_SHIFT for one in asked if one.access and one.linear >> PAGE_SHIFT < low + 20})
