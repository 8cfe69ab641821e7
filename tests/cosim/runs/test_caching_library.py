"""Recorded walks and scenarios through an MMU that caches."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.caching_session import CachingSession
from ptewalk.cosim.bench.events import SetContext
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.staleness import KINDS
from ptewalk.cosim.formats.samples import FEATURE_OFF, KERNELS, WALKS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.runs.caching_library import CachingLibrary
from ptewalk.cosim.runs.scenarios import replay_gateware
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Access
from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.presets import CACHING

pytestmark = pytest.mark.slow


@pytest.mark.share(2)
@pytest.mark.parametrize(
    ("design", "seed"), [("mmu-small", None), ("mmu-small", 3), ("mmu", 4), ("mmu-fast", 5), ("mmu-8walkers", 6)]
)
def test_recorded_walks_three_times(design: str, seed: int | None) -> None:
    """From empty caches and warm ones as four engines agreed, then under changed control as the model says."""
    told = CachingLibrary.make(CACHING[design]).recorded(WALKS, seed=seed)
    assert (told["cases"], told["agree"], told["differ"], told["skipped"]) == (3000, 3000, 0, 0)
    assert told["accesses"] == 9000
    assert told["hits"] - told["changed_hits"] == _ok(WALKS)
    assert told["changed_hits"] > 200


ON_AXI = [(design, bits, part) for design in ("mmu", "mmu-8walkers") for bits in (64, 128) for part in range(10)]


@pytest.mark.share(20)
@pytest.mark.parametrize(("design", "bits", "part"), ON_AXI)
def test_recorded_walks_behind_axi(design: str, bits: int, part: int) -> None:
    """The same through an exclusive port, on memory with a monitor: 300 walks; with `--whole` all, at both widths."""
    config = AxiMmuConfig(CACHING[design], data_bits=bits)
    told = CachingLibrary.make(config).recorded(WALKS, list(range(part, 3000, 10)), seed=part)
    assert (told["cases"], told["agree"], told["differ"], told["skipped"]) == (300, 300, 0, 0)
    assert told["accesses"] == 900 and told["hits"] >= 100


@pytest.mark.share(10)
@pytest.mark.parametrize("part", range(10))
def test_recorded_walks_behind_its_own_monitor(part: int) -> None:
    """Preset `mmu-8walkers` with the monitor, on memory without one: 300 walks each, all with `--whole`."""
    config = AxiMmuConfig(CACHING["mmu-8walkers"], monitor=True)
    told = CachingLibrary.make(config).recorded(WALKS, list(range(part, 3000, 10)), seed=part)
    assert (told["cases"], told["agree"], told["differ"], told["skipped"]) == (300, 300, 0, 0)
    assert told["accesses"] == 900 and told["hits"] >= 100


BY_ATOMICS = [(design, bits, part) for design, bits in (("mmu", 128), ("mmu-8walkers", 64)) for part in range(10)]


@pytest.mark.share(20)
@pytest.mark.parametrize(("design", "bits", "part"), BY_ATOMICS)
def test_recorded_walks_by_atomic_transactions(design: str, bits: int, part: int) -> None:
    """The same, every swap an AtomicCompare: 300 walks each, all with `--whole`."""
    config = AxiMmuConfig(CACHING[design], data_bits=bits, atomic=True)
    told = CachingLibrary.make(config).recorded(WALKS, list(range(part, 3000, 10)), seed=part)
    assert (told["cases"], told["agree"], told["differ"], told["skipped"]) == (300, 300, 0, 0)
    assert told["accesses"] == 900 and told["hits"] >= 100


def _ok(path: Path) -> int:
    with gzip.open(path, "rt") as stream:
        return sum(json.loads(line)["o"][0] == "OK" for line in stream)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("o", ["PF", 0x1234], "expected PF 0x1234, seen "), ("ad", [0, 0, 0, 64], "entry at 0x")],
)
def test_a_wrong_expectation_differs(key: str, value: Any, says: str, tmp_path: Path) -> None:
    with gzip.open(WALKS, "rt") as stream:
        lines = [json.loads(line) for line in stream]
    lines = [line for line in lines if line["o"][0] == "OK" and line["k"] == "R" and len(line["e"]) == 4][:20]
    lines[13][key] = value
    path = tmp_path / "wrong.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = CachingLibrary.make().recorded(path)
    assert (told["agree"], told["differ"]) == (19, 1)
    assert says in told["first_difference"]


CASES = [("mmu-small", kernel, track) for kernel in KERNELS for track in ("off", "fault", "native")]


@pytest.mark.share(4)
@pytest.mark.parametrize(("design", "kernel", "track"), [("mmu", "linux-6.12", "native"), *CASES])
def test_scenarios(design: str, kernel: str, track: str) -> None:
    """Each step as a real kernel answered, each word of memory as the golden model has it, each answer permitted."""
    job = ReplayJob((str(KERNELS[kernel]),), kernel, track, seed=5, design=design)
    (told,) = replay_gateware([job], None)
    steps = sum(len(scenario.steps) for scenario in load([KERNELS[kernel]]))
    assert (told["agree"], told["differ"], told["skipped"]) == (steps, 0, 0)
    tlb = told["tlb"]
    assert tlb["hits"] == told["counters"]["hits"] > tlb["answers"] // 6
    assert sum(tlb[kind] for kind in KINDS) > 30 and tlb["OTHER_PCID"] > 10


def test_scenarios_without_soft_dirty_bits() -> None:
    """A kernel built without them, on gateware that has none: page faults and D alone."""
    job = ReplayJob((str(FEATURE_OFF),), "linux-3.11", "off", soft_dirty=False, seed=5, design="mmu-small")
    (told,) = replay_gateware([job], None)
    assert (told["scenarios"], told["agree"], told["differ"], told["skipped"]) == (20, 140, 0, 0)
    assert told["counters"]["marks"] == 0 and told["tlb"]["hits"] == told["counters"]["hits"] > 400


def test_scenarios_in_any_number_of_processes() -> None:
    job = ReplayJob((str(KERNELS["linux-seed"]),), "linux-seed", "native", design="mmu-small")
    one, two = (replay_gateware([job], None, workers=workers)[0] for workers in (1, 2))
    assert one == two


def test_a_lane_has_one_session_at_a_time() -> None:
    """Who goes on after another ran would find the other's caches."""
    lane = CachingLibrary.make().lane
    memory, read = SparseMemory(), [Request(0, Access.READ)]
    first, second = CachingSession(lane), CachingSession(lane)
    first.ask(memory, [SetContext(State(0x1000), 1)], read)
    second.ask(memory, [SetContext(State(0x1000), 1)], read)
    with pytest.raises(RuntimeError, match="another session"):
        first.ask(memory, [], read)
