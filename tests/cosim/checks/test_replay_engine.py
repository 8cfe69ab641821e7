"""What /proc does to tables in a replay on gateware is the table engine's doing, and what it gets wrong is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.engine import GatewareEngine
from ptewalk.cosim.bench.engine_lane import EngineLane, EngineRun
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.runs.scenarios import check_on_gateware, replay_gateware
from ptewalk.model.engine import Pages
from ptewalk.model.pte import Entries

pytestmark = pytest.mark.thorough
PAGES = 5
STEPS: list[dict[str, Any]] = [
    {"op": "mmap", "page": 0, "n": PAGES, "prot": "rw", "kind": "anon"},
    {"op": "write", "page": 0, "n": PAGES},
    {"op": "clear_refs", "value": "4"},
    {"op": "write", "page": 3, "n": 1},
    {"op": "clear_refs", "value": "1"},
    {"op": "clear_refs", "value": "4"},
]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A scenario without answers: five pages written, cleared, one written, made old, cleared."""
    return written(tmp_path, STEPS)


def written(folder: Path, ops: list[dict[str, Any]]) -> Path:
    """A file with one scenario of process 0, "few"."""
    path = folder / "few.jsonl"
    head = {"t": "scenario", "name": "few", "base": "0x100000000000", "steps": len(ops)}
    steps = [{"t": "step", "name": "few", "i": i, "op": {"who": 0} | op} for i, op in enumerate(ops)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *steps]))
    return path


def checked(path: Path, track: str, design: str = "mmu-uncached") -> dict[str, Any]:
    """The scenario in step with the golden model."""
    return check_on_gateware(load([path], None), "linux-6.1", track, True, None, design=design, seed=1)


@pytest.mark.parametrize("track", ["off", "fault", "native"])
def test_the_engine_clears_ages_and_tells(scenario: Path, track: str) -> None:
    """Changed: five entries cleared, then A of five, then one cleared of SD and RW; in `native` of SD alone."""
    result = checked(scenario, track)
    assert (result["agree"], result["differ"]) == (len(STEPS), 0), result["first_difference"]
    engine = result["engine"]
    assert (engine["clears"], engine["agings"]) == (2, 1)
    assert engine["changed"] == PAGES + PAGES + 1
    assert engine["words"] >= len(STEPS) * PAGES
    assert engine["cycles"] > engine["words"]


def test_an_engine_that_only_says_so_is_seen(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else clears: where a clear is not done, memory differs from the golden model's."""

    def lazy(self: GatewareEngine, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        return pages.last

    monkeypatch.setattr(GatewareEngine, "clear", lazy)
    result = checked(scenario, "native")
    assert result["differ"] and "few step 2" in result["first_difference"], result["first_difference"]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [("changed", 4, "4 entries changed, of 5"), ("stopped", 4, "BUS_ERROR"), ("given_up", 1, "given_up")],
)
def test_what_a_completion_says_is_compared(
    scenario: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: int, text: str
) -> None:
    real = EngineLane.run

    def wrong(self: EngineLane, *given: Any, **named: Any) -> EngineRun:
        run = real(self, *given, **named)
        if run.completions[0]["changed"] == PAGES:
            run.completions[0][field] = value
        return run

    monkeypatch.setattr(EngineLane, "run", wrong)
    assert text in checked(scenario, "off")["first_difference"]


def test_words_that_are_wrong_are_seen(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EngineLane.run

    def wrong(self: EngineLane, *given: Any, **named: Any) -> EngineRun:
        run = real(self, *given, **named)
        run.report[run.report != 0] ^= 1 << 55
        return run

    monkeypatch.setattr(EngineLane, "run", wrong)
    assert "golden model's state" in checked(scenario, "off")["first_difference"]


@pytest.mark.parametrize(
    ("room", "scans"),
    [({}, 3), ({"vec_len": 0}, 3), ({"vec_len": 10}, 6), ({"vec_len": 4}, 0), ({"max_pages": 3}, 0)],
)
def test_what_was_written_is_told_and_protected_in_one_pass(tmp_path: Path, room: dict[str, int], scans: int) -> None:
    """PM_SCAN_WP_MATCHING of WRITTEN: a command each, as far as what it may find has room; else words come first."""
    written_pages = {"op": "pagemap_scan", "page": 0, "n": 24, "category_mask": 2, "return_mask": 2, "flags": 1}
    ops: list[dict[str, Any]] = [
        {"op": "mmap", "page": 0, "n": 24, "prot": "rw", "kind": "anon"},
        {"op": "write", "page": 0, "n": 10},
        {"op": "write", "page": 12, "n": 3},
        {"op": "uffd_async_open"},
        {"op": "uffd_async_reg", "page": 0, "n": 24},
        written_pages | room,
        {"op": "write", "page": 3, "n": 1},
        {"op": "write", "page": 20, "n": 1},
        written_pages | room,
        written_pages | room,
    ]
    scenario = load([written(tmp_path, ops)], None)
    result = check_on_gateware(scenario, "linux-6.12", "off", True, None, design="mmu-uncached", seed=1)
    assert (result["agree"], result["differ"]) == (len(ops), 0), result["first_difference"]
    assert result["engine"]["scans"] == scans


def test_beside_an_mmu_that_caches(scenario: Path) -> None:
    result = checked(scenario, "fault", "mmu-small")
    assert (result["agree"], result["differ"]) == (len(STEPS), 0), result["first_difference"]
    assert result["engine"]["changed"] == 2 * PAGES + 1


def test_recorded_scenarios(tmp_path: Path) -> None:
    """A recording goes through the engine too: what a kernel answered, and each word of memory."""
    sample = Path(__file__).parents[3] / "cosim" / "formats" / "data" / "linux-6.12-sample.jsonl.gz"
    names = tuple(one.name for one in load([sample], None) if any(s.op["op"] == "pagemap_scan" for s in one.steps))[:6]
    job = ReplayJob((str(sample),), "linux-6.12", "fault", names=names, seed=2)
    (result,) = replay_gateware([job], None)
    assert names and result["differ"] == 0 and result["agree"] == result["steps"]
    assert result["engine"]["pagemaps"] > len(names)


def test_mremap_goes_through_the_engine(tmp_path: Path) -> None:
    """Five entries to where another table is; then all of a table, which goes as one entry."""
    pages = 512
    steps = [
        {"op": "mmap", "page": 0, "n": 3 * pages, "prot": "rw", "kind": "anon"},
        {"op": "madvise", "page": 0, "n": 3 * pages, "advice": "NOHUGEPAGE"},
        {"op": "write", "page": 0, "n": PAGES},
        {"op": "write", "page": pages + 3, "n": 1},
        {
            "op": "mremap",
            "page": 0,
            "n": PAGES,
            "new_n": PAGES,
            "flags": ["MAYMOVE", "FIXED"],
            "new_page": 4 * pages + 7,
        },
        {
            "op": "mremap",
            "page": pages,
            "n": pages,
            "new_n": pages,
            "flags": ["MAYMOVE", "FIXED"],
            "new_page": 8 * pages,
        },
    ]
    path = written(tmp_path, steps)
    result = check_on_gateware(load([path], None), "linux-6.1", "native", True, None, seed=1)
    assert (result["agree"], result["differ"]) == (len(steps), 0), result["first_difference"]
    assert (result["engine"]["moves"], result["engine"]["relinks"], result["engine"]["moved"]) == (1, 1, PAGES + 1)
