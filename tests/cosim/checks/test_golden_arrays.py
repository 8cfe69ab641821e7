"""A batch judged at once is judged as request by request; and whatever of its log is changed is noticed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.bench.conditions import BatchResult
from ptewalk.cosim.bench.records import EventKind, Records
from ptewalk.cosim.checks import golden_arrays
from ptewalk.cosim.checks.golden import Golden, Verdict
from ptewalk.cosim.checks.random_walks import RandomBatch, random_batch
from ptewalk.cosim.runs.gateware import WalkerLibrary

SIZE = 300


@pytest.fixture(scope="module")
def library() -> WalkerLibrary:
    return WalkerLibrary.make()


def run(library: WalkerLibrary, number: int) -> tuple[RandomBatch, BatchResult]:
    batch = random_batch(20261127, number, SIZE, library.design)
    return batch, library.lane.run(batch.requests, batch.memory, batch.interferences, batch.conditions)


def judge(library: WalkerLibrary, batch: RandomBatch, result: BatchResult, *, one_by_one: bool) -> Verdict:
    return Golden(library.design, one_by_one=one_by_one).judge(
        result,
        physical_bits=batch.memory.physical_bits,
        shadow=copy.deepcopy(batch.before),
        memory=batch.memory,
        refusals=batch.conditions.errors > 0,
    )


def fields(verdict: Verdict) -> list[Any]:
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in vars(verdict).values()]


@pytest.mark.thorough
def test_at_once_as_one_by_one(library: WalkerLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def eat(*given: Any, **named: Any) -> golden_arrays.Eaten | None:
        found = golden_arrays.eat(*given, **named)
        told.append(found is not None)
        return found

    monkeypatch.setattr("ptewalk.cosim.checks.golden.eat", eat)
    swaps = refused = overtaken = 0
    for number in range(12):
        batch, result = run(library, number)
        at_once = judge(library, batch, result, one_by_one=False)
        assert fields(at_once) == fields(judge(library, batch, result, one_by_one=True))
        assert at_once.differ == 0 and len(at_once.expected) == SIZE
        swaps, refused = swaps + len(at_once.swaps), refused + int(at_once.swaps["refused"].sum())
        overtaken += int(at_once.swaps["overtaken"].sum())
    assert told == [True] * 12
    assert swaps >= 2000 and refused >= 5 and overtaken >= 50, (swaps, refused, overtaken)


def spoilt(events: Records) -> list[tuple[str, Records]]:
    """The log with one thing wrong in it, each with a name."""
    kinds = {kind: np.flatnonzero((events["kind"] == kind) & (events["error"] == 0)) for kind in EventKind}
    wrong: list[tuple[str, Records]] = []

    def change(name: str, at: int, field: str, mask: int) -> None:
        log = events.copy()
        log[field][at] ^= log[field].dtype.type(mask)
        wrong.append((f"{name}: {field}", log))

    for place in (3, 40, 120):
        read, swap = int(kinds[EventKind.READ][place]), int(kinds[EventKind.SWAP][place])
        change("read", read, "address", 8)
        change("read", read, "old", 1 << 9)
        change("read", read, "kind", 1)
        change("read", read, "error", 1)
        change("swap", swap, "address", 1 << 20)
        change("swap", swap, "old", 1 << 58)
        change("swap", swap, "new", 1 << 5)
        change("swap", swap, "new", 1 << 63)
        change("swap", swap, "done", 1)
        wrong += [("an access is left out", np.delete(events, at)) for at in (read, swap)]
        wrong += [("an access is made twice", np.insert(events, at, events[at])) for at in (read, swap)]
        wrong.append(
            ("of another request", np.concatenate([events[:read], events[read + 1 :], events[read : read + 1]]))
        )
    ends = np.flatnonzero((events["request"][1:] != events["request"][:-1]) & (events["kind"][:-1] == EventKind.READ))
    last = int(ends[7])
    wrong.append(("a read more at the end of a walk", np.insert(events, last + 1, events[last])))
    foreign = int(kinds[EventKind.FOREIGN][5])
    wrong.append(("a foreign write is left out", np.delete(events, foreign)))
    change("foreign", foreign, "new", 1 << 40)
    return wrong


@pytest.mark.thorough
def test_what_is_wrong_in_a_log_is_told_the_same_way(library: WalkerLibrary) -> None:
    """Nothing wrong passes at once; where the bus may refuse anything, a refusal that nobody made does not count."""
    number = next(
        number for number in range(50) if not random_batch(20261127, number, 1, library.design).conditions.errors
    )
    batch, result = run(library, number)
    cases = spoilt(result.events)
    for name, log in cases:
        log = np.ascontiguousarray(log)
        at_once = judge(library, batch, replace(result, events=log), one_by_one=False)
        assert at_once.differ > 0, name
        assert fields(at_once) == fields(judge(library, batch, replace(result, events=log), one_by_one=True)), name
    assert len(cases) == 45


@pytest.mark.thorough
def test_a_foreign_write_that_is_told_late(library: WalkerLibrary) -> None:
    """After a swap of a walk that goes on none can fall; no word shows it, and it passes neither way."""
    batch = random_batch(77, 896, 120, library.design)
    result = library.lane.run(batch.requests, batch.memory, batch.interferences, batch.conditions)
    compared = 0
    for place in np.flatnonzero(result.events["kind"] == EventKind.FOREIGN).tolist():
        for later in range(place + 1, min(place + 4, len(result.events))):
            log = result.events.copy()
            log[[place, later]] = log[[later, place]]
            told = [
                judge(library, batch, replace(result, events=log), one_by_one=way).differ > 0 for way in (False, True)
            ]
            assert told[0] == told[1], (place, later)
            compared += 1
    assert compared >= 100


@pytest.mark.thorough
def test_a_fault_is_lost_where_the_queue_is_full(library: WalkerLibrary) -> None:
    """One that is answered as the full queue's first record is taken is lost; with room none may be."""
    library.lane.reset()
    batch = random_batch(7, 4430, 2000, library.design)
    result = library.lane.run(batch.requests, batch.memory, batch.interferences, batch.conditions)
    counters = result.counters
    assert (counters.lost_faults, counters.most_faults) == (1, library.design.parameters["fault_depth"])
    assert judge(library, batch, result, one_by_one=False).differ == 0
    counters.most_faults -= 1
    assert judge(library, batch, result, one_by_one=False).differences == [
        "1 faults lost, and the queue was never full"
    ]


def test_a_wrong_answer_is_noticed(library: WalkerLibrary) -> None:
    batch, result = run(library, 0)
    responses = result.responses.copy()
    responses["physical"][np.flatnonzero(responses["outcome"] == 0)[0]] ^= np.uint64(1 << 12)
    verdict = judge(library, batch, replace(result, responses=responses), one_by_one=False)
    assert int((verdict.expected["physical"] != responses["physical"]).sum()) >= 1
    assert verdict.differ == 1, "the trace of the walk"


@pytest.mark.parametrize("size", [1, 7, 300])
def test_a_small_batch_is_the_beginning_of_a_large_one(library: WalkerLibrary, size: int) -> None:
    few, many = (random_batch(4, 9, count, library.design) for count in (size, 600))
    assert few.requests.tolist() == many.requests[:size].tolist()
    assert few.interferences.tolist() == many.interferences[many.interferences["request"] < size].tolist()
    assert few.conditions == many.conditions
    words = many.before.words
    assert few.before.words and all(words[address] == value for address, value in few.before.words.items())
