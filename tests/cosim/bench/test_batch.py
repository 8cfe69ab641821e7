"""The testbench at both levels: same answers in the same cycles, each rule of the ports held, and the model agrees."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.bench.conditions import Conditions, Stalls
from ptewalk.cosim.bench.lane import VerilatorLane
from ptewalk.cosim.bench.records import (
    INTERFERENCE,
    REQUEST,
    Records,
    encode_requests,
    encode_result,
    make,
    merge_tags,
    relevant,
    state_and_request,
    validate_interferences,
    validate_requests,
)
from ptewalk.cosim.checks.golden import Golden
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.simulate.build import BuildDir
from ptewalk.cosim.simulate.run import RunResult, run_test
from ptewalk.model.linux import Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import BusFault, PageFault, Request, Result, State, Translated, translate
from ptewalk.model.x86 import Access

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
A = 0x20
STALLS = {"requests": 0.2, "responses": 0.3, "reads": 0.25, "swaps": 0.4}
DEFECTS = {
    "NEVER_ACCEPTS": (1, "TIMEOUT"),
    "NEVER_ANSWERS": (2, "TIMEOUT"),
    "ANSWERS_TWICE": (3, "STRAY_RESPONSE"),
    "READS_AFTERWARDS": (4, "STRAY_MEMORY"),
    "CHANGES_RESPONSE": (5, "UNSTABLE_RESPONSE"),
    "CHANGES_READ": (6, "UNSTABLE_READ"),
    "DROPS_SWAP": (7, "UNSTABLE_SWAP"),
    "READS_TWICE": (8, "TWO_OUTSTANDING"),
    "ACCEPTS_TWO": (9, "TWO_IN_FLIGHT"),
    "DROPS_RESPONSE": (10, "UNSTABLE_RESPONSE"),
    "TAKES_A_CONTEXT_IN_FLIGHT": (11, "CONTEXT_IN_FLIGHT"),
    "TAKES_A_REQUEST_FIRST": (12, "CONTEXT_OVERTAKEN"),
}
"""Defect of tests/cosim/bench/walker_double.v to its number there and the rule that it breaks."""


class SecondWriter:
    """A memory for the golden model in which a second writer acts as in a batch.

    Offers what `translate` needs, over `memory`; each `load` counts as a read, and after it was answered
    the writes that fall there are done.

    Parameters
    ----------
    memory : SparseMemory
        The memory, changed in place.
    interferences : Records
        `INTERFERENCE` records, in any order.
    """

    def __init__(self, memory: SparseMemory, interferences: Records) -> None:
        self.memory = memory
        self.physical_bits = memory.physical_bits
        self._writes: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in interferences:
            key = int(row["request"]), int(row["after"])
            self._writes.setdefault(key, []).append((int(row["address"]), int(row["value"])))
        self._request = self._reads = 0
        self.writes = 0
        """How many writes were done."""

    def begin(self, request: int) -> None:
        """The request of this index is accepted now."""
        self._request, self._reads = request, 0
        self._act()

    def load(self, address: int) -> int:
        """As `SparseMemory.load`; the second writer acts after the value was read."""
        try:
            return self.memory.load(address)
        finally:
            self._reads += 1
            self._act()

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `SparseMemory.compare_exchange`."""
        return self.memory.compare_exchange(address, old, new)

    def _act(self) -> None:
        for address, value in self._writes.get((self._request, self._reads), ()):
            self.memory.store(address, value)
            self.writes += 1


def tables(seed: int) -> tuple[SparseMemory, list[list[int]]]:
    """Random tables in which four addresses a level are walked: the memory, and the table frames by level - 1."""
    rng = random.Random(seed)
    memory = SparseMemory()
    frames = [[0x1000 * (level + 1) + 7 * number for number in range(4)] for level in range(5)]
    for level, numbers in enumerate(frames):
        for number in numbers:
            row = memory.add_frame(number)
            for index in range(4):
                below = rng.choice(frames[level - 1]) if level else rng.getrandbits(28)
                # P, RW, US, A mostly; PWT and PCD; XD and, in leaves, D, soft-dirty, ARM and a key.
                entry = below << 12 | (rng.random() < 0.95) | rng.choice((6, 6, 7, 4, 2)) & 6
                entry |= (rng.random() < 0.5) * A | rng.getrandbits(2) << 3 | (rng.random() < 0.1) << 63
                if level == 0:
                    entry |= rng.getrandbits(1) << 6 | rng.getrandbits(1) << 11 | (rng.random() < 0.2) << 59
                    entry |= (not entry & 2 and rng.random() < 0.7) << 52
                elif level < 3 and rng.random() < 0.2:
                    entry = entry & ~0xFFFFFFFFFF000 | 0x80 | rng.getrandbits(10) << 30
                row[index] = entry
    return memory, frames


def random_requests(seed: int, frames: list[list[int]], count: int) -> Records:
    """Requests into `tables`; the control state changes now and then."""
    rng = random.Random(seed)
    pairs = []
    state = None
    for _ in range(count):
        if state is None or rng.random() < 0.3:
            state = State(
                root=rng.choice(frames[3]) << 12,
                control=rng.getrandbits(7) | 2,
                pkru=rng.getrandbits(4),
                pkrs=0,
                track=Track(rng.randrange(3)),
                saved_dirty=rng.random() < 0.5,
            )
        linear = sum(rng.randrange(4) << 12 + 9 * level for level in range(4)) | rng.getrandbits(12)
        linear |= (rng.random() < 0.03) << 50
        pairs.append((state, Request(linear, rng.choice(list(Access)), rng.random() < 0.7, rng.random() < 0.1)))
    return encode_requests(pairs)


def random_interferences(seed: int, requests: Records, memory: SparseMemory, frames: list[list[int]]) -> Records:
    """Flips of one bit in entries, most of them in one that the walk has just read."""
    rng = random.Random(seed)
    rows = []
    for number, request in enumerate(requests):
        if rng.random() < 0.5:
            continue
        table, after = int(request["root"]), rng.randrange(1, 5)
        for level in range(3, 3 - after, -1):
            address = table << 12 | (int(request["linear"]) >> 12 + 9 * level & 511) * 8
            table = memory.load(address) >> 12 & 0xFFFFFFF
            if table not in memory.row_of_frame:
                break
        value = memory.load(address) ^ 1 << rng.choice((1, 5, 5, 6, 11, 52))
        rows.append((address, value, number, after))
        if rng.random() < 0.2:
            rows.append(((rng.choice(frames[0]) << 12) + 8 * rng.randrange(4), rng.getrandbits(12) | 1, number, 0))
    return np.array(rows, INTERFERENCE)


def double_walk(memory: SecondWriter, row: np.void) -> Result:
    """What tests/cosim/bench/walker_double.v does: P, PS and A only."""
    table, linear = int(row["root"]) << 12, int(row["linear"])
    level = 5 if row["control"] & 0x80 else 4
    while True:
        address = table | (linear >> 3 + 9 * level & 511) << 3
        try:
            entry = memory.load(address)
            if not entry & 1:
                return PageFault(0)
            if not entry & A and not memory.compare_exchange(address, entry, entry | A):
                continue
        except BusError:
            return BusFault()
        if level == 1 or (entry & 0x80 and level <= 3):
            offset = (1 << 3 + 9 * level) - 1
            return Translated(
                entry & 0xFFFFFFF000 & ~offset | linear & offset, level, bool(entry & 8), bool(entry & 16), False
            )
        table, level = entry & 0xFFFFFFF000, level - 1


def model_walk(memory: SecondWriter, row: np.void) -> Result:
    """What the golden model does."""
    return translate(memory, *state_and_request(row))


def expected(
    walk: Any, memory: SparseMemory, requests: Records, interferences: Records
) -> tuple[Records, SparseMemory]:
    """The model's `RESPONSE` records and the memory that it leaves."""
    writer = SecondWriter(memory.copy(), interferences)
    results = []
    for number, row in enumerate(requests):
        writer.begin(number)
        results.append(walk(writer, row))
    return merge_tags(encode_result(results), requests), writer.memory


def run(
    build: BuildDir,
    memory: SparseMemory,
    runs: list[dict[str, Any]],
    *,
    testcase: str = "batches",
    **arrays: Any,
) -> RunResult:
    """Run tb_bench on `memory`."""
    frames = memory.frames()
    result = run_test(
        build,
        "tb_bench",
        testcase=testcase,
        values={"physical_bits": memory.physical_bits, "strict": memory.strict, "runs": runs},
        arrays={"frames": np.array(frames, np.uint64), "words": np.array([memory.frame(f) for f in frames]), **arrays},
        module_path=HERE,
        timeout=300,
    )
    assert result.passed, result.message
    return result


def same_rows(one: Records, two: Records) -> bool:
    return len(one) > 0 and bool(np.array_equal(one, two))


HARD: dict[str, Any] = {
    "latency": 3,
    "latency_spread": 9,
    "retirement_spread": 60,
    "drains": 0.05,
    "errors": 0.02,
    "seed": 11,
}
LOGS = ("requests", "responses", "translations", "events", "faults", "written", "walked")


@pytest.mark.parametrize(
    ("conditions", "stalls"),
    [
        pytest.param({"latency": 1, "seed": 5}, {}, id="calm"),
        pytest.param({"latency": 3, "seed": 5}, STALLS, id="stalls"),
        pytest.param(HARD, {**STALLS, "faults": 0.97}, id="hard"),
        pytest.param({**HARD, "linger": 1, "errors": 0.0}, {"faults": 0.9}, id="short linger"),
    ],
)
def test_all_levels_agree_with_the_model_and_with_each_other_in_every_cycle(
    verilator_mmu: BuildDir, mmu_library: BuildDir, conditions: dict[str, Any], stalls: dict[str, float]
) -> None:
    """The linked lane, the protocol level and the library: answers, cycles, logs and counters."""
    memory, frames = tables(conditions["latency"])
    requests = random_requests(2, frames, 500)
    interferences = random_interferences(3, requests, memory, frames)
    how = {"conditions": conditions, "stalls": stalls, "interferences": "interferences"}
    # After a reset the gateware takes its first request some hundred cycles late: a batch that is not compared.
    runs = [{**how, "compiled": compiled} for compiled in (True, False, True)] + [{}]
    runs = [runs[3], *runs[:3]]
    result = run(verilator_mmu, memory, runs, requests=requests, interferences=interferences)
    reports = result.values["reports"][1:]
    arrays = {f"{name[:-1]}{int(name[-1]) - 1}": rows for name, rows in result.arrays.items() if name[-1] != "0"}
    assert [report["error"] for report in reports] == ["", "", ""]
    assert [report["compiled"] for report in reports] == [True, False, True]
    own = memory.copy()
    with VerilatorLane(mmu_library.library) as lane:
        lane.run(requests, memory.copy())
        told = lane.run(requests, own, interferences, Conditions(stalls=Stalls(**stalls), **conditions))
    reports.append({**asdict(told.counters), "compiled": True})
    arrays |= {f"{name}3": getattr(told, name) for name in LOGS}
    arrays["words3"] = own.words[: len(memory.row_of_frame)]
    if not conditions.get("errors"):
        model, left = expected(model_walk, memory, requests, interferences)
        assert same_rows(relevant(arrays["responses0"]), model)
        assert np.array_equal(arrays["words0"], [left.frame(f) for f in memory.frames()])
    golden = Golden(lane.design).judge(
        told, physical_bits=40, shadow=Shadow.of(memory), memory=own, refusals=bool(conditions.get("errors"))
    )
    assert golden.differences == []
    for number, report in enumerate(reports):
        assert np.array_equal(arrays[f"words{number}"], arrays["words0"])
        assert same_rows(arrays[f"requests{number}"], requests)
        for name in LOGS:
            assert same_rows(arrays[f"{name}{number}"], arrays[f"{name}0"]), name
        for counter in asdict(told.counters):
            assert report[counter] == reports[0][counter], counter
    assert reports[0]["failed_swaps"] > 10
    assert reports[0]["foreign_writes"] > 100
    assert (reports[0]["drains"] > 10) == ("drains" in conditions)
    assert (reports[0]["lost_faults"] > 0) == (stalls.get("faults", 0) > 0.95)


def test_batch_level_is_at_least_fifty_times_the_protocol_level(verilator_walker: BuildDir) -> None:
    memory, frames = tables(1)
    requests = random_requests(2, frames, 100_000)
    runs: list[dict[str, Any]] = [{"compiled": True}, {"compiled": False, "requests": "few"}]
    result = run(verilator_walker, memory, runs, requests=requests, few=requests[:500])
    fast, slow = (report["cycles"] / report["seconds"] for report in result.values["reports"])
    assert fast > 50 * slow, (fast, slow)


@pytest.fixture(scope="module")
def defect_reports(verilator_double: BuildDir, icarus_double: BuildDir) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Defect, then level, to the reports of a batch with the defect and of one without it, after a reset."""
    memory, frames = tables(1)
    requests = random_requests(2, frames, 4)
    for field in ("root", "control", "pkru", "track", "saved_dirty"):
        requests[field] = requests[field][0]
    batches: dict[str, Any] = {"sound": requests}
    runs = []
    for defect, (number, _) in DEFECTS.items():
        batches[defect] = requests.copy()
        batches[defect]["pkrs"] = number
        if "CONTEXT" in DEFECTS[defect][1]:
            batches[defect]["pkru"] = range(len(requests))
        stalls = {} if defect.startswith(("READS", "TAKES")) else {"responses": 0.7, "reads": 0.7, "swaps": 0.7}
        for name in (defect, "sound"):
            conditions = {"latency": 3, "max_cycles": 200}
            runs.append({"conditions": conditions, "stalls": stalls, "requests": name, "compiled": False})
    compiled = [{**how, "compiled": True} for how in runs]
    reports = {
        "batch": run(verilator_double, memory, compiled, **batches).values["reports"],
        "protocol": run(verilator_double, memory, runs, **batches).values["reports"],
        "protocol, Icarus": run(icarus_double, memory, runs, **batches).values["reports"],
    }
    return {
        defect: {level: all_of[2 * index : 2 * index + 2] for level, all_of in reports.items()}
        for index, defect in enumerate(DEFECTS)
    }


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_rule_of_the_ports_is_held_at_both_levels(
    defect_reports: dict[str, dict[str, list[dict[str, Any]]]], defect: str
) -> None:
    reports = defect_reports[defect]
    first = reports["batch"][0]
    assert first["status"] == DEFECTS[defect][1], first
    assert first["status"] in first["error"]
    for level, (broken, sound) in reports.items():
        assert broken == first, level
        assert sound["error"] == "", level


def test_protocol_level_works_in_icarus_and_in_verilator_alike(
    verilator_double: BuildDir, icarus_double: BuildDir
) -> None:
    memory, frames = tables(4)
    requests = random_requests(5, frames, 100)
    requests["pkrs"] = 0
    interferences = random_interferences(6, requests, memory, frames)
    how = {
        "conditions": {"latency": 2, "seed": 7},
        "stalls": STALLS,
        "interferences": "interferences",
    }
    both = [
        run(build, memory, [how], requests=requests, interferences=interferences)
        for build in (verilator_double, icarus_double)
    ]
    assert [result.values["reports"][0]["compiled"] for result in both] == [True, False]
    model, left = expected(double_walk, memory, requests, interferences)
    for result in both:
        assert same_rows(relevant(result.arrays["responses0"]), model)
        assert np.array_equal(result.arrays["words0"], [left.frame(f) for f in memory.frames()])
        assert same_rows(result.arrays["events0"], both[0].arrays["events0"])
    assert {int(outcome) for outcome in model["outcome"]} == {0, 1}


def test_stop_on_fault_ends_with_the_first_response_that_is_not_ok(verilator_double: BuildDir) -> None:
    memory, frames = tables(1)
    requests = random_requests(2, frames, 200)
    requests["pkrs"] = 0
    runs = [{"stop_on_fault": True, "compiled": compiled} for compiled in (True, False)]
    result = run(verilator_double, memory, runs, requests=requests)
    model, _ = expected(double_walk, memory, requests, np.zeros(0, INTERFERENCE))
    last = int(np.flatnonzero(model["outcome"])[0])
    assert 0 < last < 100
    for number in range(2):
        assert same_rows(relevant(result.arrays[f"responses{number}"]), model[: last + 1])
        assert len(result.arrays[f"requests{number}"]) == last + 1


def test_addresses_without_memory_get_a_bus_error(verilator_double: BuildDir) -> None:
    memory = SparseMemory(32, strict=True)
    memory.add_frame(5)[:] = [0x6000 | 1 | A, 0x1_0000_0000 | 1 | A] + [0x5000 | 1 | A] * 510
    base = {"root": 5, "linear": 0}
    cases = {
        "a frame that a strict memory lacks": {**base, "linear": 0},
        "an address beyond the memory's width": {**base, "linear": 1 << 39},
        "a frame that is there": {**base, "linear": 2 << 39 | 2 << 30 | 2 << 21 | 2 << 12},
        "the root's own frame is missing": {**base, "root": 7},
    }
    requests = np.array([make(REQUEST, case) for case in cases.values()], REQUEST)
    runs = [{"compiled": compiled} for compiled in (True, False)]
    result = run(verilator_double, memory, runs, requests=requests)
    for number in range(2):
        assert list(result.arrays[f"responses{number}"]["outcome"]) == [3, 3, 0, 3]
        assert list(result.arrays[f"events{number}"]["error"]) == [0, 1, 0, 1, 0, 0, 0, 0, 1]


def test_memory_that_is_not_strict_reads_zero_where_nothing_was_written(verilator_double: BuildDir) -> None:
    memory = SparseMemory(40)
    memory.add_frame(5)
    requests = np.array([make(REQUEST, {"root": 9})], REQUEST)
    result = run(verilator_double, memory, [{"compiled": True}, {"compiled": False}], requests=requests)
    assert [int(result.arrays[f"responses{number}"]["outcome"][0]) for number in range(2)] == [1, 1]


def test_empty_batches_and_the_absence_of_the_batch_level(verilator_double: BuildDir, icarus_double: BuildDir) -> None:
    memory, frames = tables(1)
    requests = random_requests(2, frames, 1)[:0]
    runs = [{"compiled": True}, {"compiled": False}]
    result = run(verilator_double, memory, runs, requests=requests)
    for number, report in enumerate(result.values["reports"]):
        assert (report["error"], report["reads"], report["cycles"]) == ("", 0, Conditions().linger)
        assert len(result.arrays[f"responses{number}"]) == 0
    refused, fallback = run(icarus_double, memory, [{"compiled": True}, {}], requests=requests).values["reports"]
    assert "this model has no batch level" in refused["error"]
    assert fallback["compiled"] is False


def test_single_requests_and_callbacks(verilator_double: BuildDir) -> None:
    memory, frames = tables(1)
    requests = random_requests(2, frames, 5)
    requests["pkrs"] = 0
    result = run(verilator_double, memory, [], testcase="single_requests", requests=requests)
    assert "start() must be awaited before batch()" in result.values["refused"]
    writer = SecondWriter(memory, np.zeros(0, INTERFERENCE))
    assert result.values["results"] == [repr(double_walk(writer, row)) for row in requests]
    assert result.values["seen"] == result.values["answered"] == [[0, tag] for tag in range(1, 6)]


def test_arrays_are_checked_before_anything_runs() -> None:
    memory, frames = tables(1)
    requests = random_requests(2, frames, 3)
    limits: dict[str, Any] = {"physical_bits": 40, "tag_bits": 8, "soft_dirty": True}
    assert validate_requests(requests, **limits) is requests
    with pytest.raises(TypeError, match="requests must be a numpy array of the record type .*, not of list"):
        validate_requests(list(requests), **limits)
    with pytest.raises(TypeError, match="not of uint64"):
        validate_requests(np.zeros(3, np.uint64), **limits)
    with pytest.raises(ValueError, match=r"requests must have one dimension, not shape \(1, 3\)"):
        validate_requests(requests[None], **limits)
    for field, value, text in (
        ("access", 5, "access must be at most 0x4, not 0x5"),
        ("tag", 256, "tag must be at most 0xff, not 0x100"),
        ("root", 1 << 28, "root must be at most 0xfffffff, not 0x10000000"),
        ("control", 256, "control must be at most 0xff, not 0x100"),
        ("user", 2, "user must be at most 0x1, not 0x2"),
    ):
        bad = requests.copy()
        bad[field][2] = value
        with pytest.raises(ValueError, match=rf"requests: {text} \(record 2\)"):
            validate_requests(bad, **limits)
    tracked = requests.copy()
    tracked["track"] = [0, 1, 0]
    with pytest.raises(ValueError, match=r"track must be at most 0x0, not 0x1 \(record 1\)"):
        validate_requests(tracked, physical_bits=40, tag_bits=8, soft_dirty=False)

    rows = np.array([(0x1000_008, 1, 1, 2), (0x1000_000, 1, 1, 1), (0x1000_000, 1, 0, 3)], INTERFERENCE)
    ordered = validate_interferences(rows, requests=2, memory=memory)
    assert [(int(row["request"]), int(row["after"])) for row in ordered] == [(0, 3), (1, 1), (1, 2)]
    with pytest.raises(ValueError, match=r"request must be below 1, the number of requests, not 1"):
        validate_interferences(rows, requests=1, memory=memory)
    rows["address"][0] = 4
    with pytest.raises(ValueError, match="a word's address must be a multiple of 8, not 0x4"):
        validate_interferences(rows, requests=2, memory=memory)
    rows["address"][0] = 1 << 45
    with pytest.raises(ValueError, match="no memory at physical address"):
        validate_interferences(rows, requests=2, memory=memory)


def test_conditions_are_checked() -> None:
    with pytest.raises(ValueError, match="latency must be an integer from 1 to 1048576, not 0"):
        Conditions(latency=0)
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        Conditions(seed=-1)
    with pytest.raises(ValueError, match="stalls: reads must be a chance from 0 to below 1, not 1.0"):
        Stalls(reads=1.0)
