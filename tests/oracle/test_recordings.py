"""The model against recordings of real kernels: every field of every step, raw page tables included."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.model.linux import Track
from ptewalk.model.scenario.format import read
from ptewalk.model.scenario.report import replay

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "cosim" / "formats" / "data"
_WITH_CONTENTS = sorted(
    path
    for pattern in ("*/**/data/*linux-6.*.jsonl*", "tests/data/*linux-7.*.jsonl*")
    for path in ROOT.glob(pattern)
    if path.name != "linux-6.18-sample.jsonl.gz"
)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "profile", "soft_dirty", "scenarios", "steps"),
    [
        ("linux-seed-sample", "linux-seed", True, 54, 355),
        ("linux-3.11-sample", "linux-3.11", True, 50, 336),
        ("linux-3.11-feature-off-sample", "linux-3.11", False, 20, 140),
        ("linux-6.1-sample", "linux-6.1", True, 80, 601),
        ("linux-6.12-sample", "linux-6.12", True, 100, 744),
        ("linux-6.18-sample", "linux-6.18", True, 30, 385),
        ("linux-7.3-sample", "linux-7.3", True, 159, 1974),
    ],
)
def test_sample(name: str, profile: str, soft_dirty: bool, scenarios: int, steps: int) -> None:
    report = replay(read(SAMPLES / f"{name}.jsonl.gz"), profile, soft_dirty=soft_dirty)
    assert report.first_difference is None
    assert (report.scenarios, report.steps, report.agree, report.skipped) == (scenarios, steps, steps, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "data").glob("own-linux-*.jsonl.gz")), ids=lambda p: p.name)
def test_own_recording(path: Path) -> None:
    profile = path.name.removeprefix("own-").removesuffix(".jsonl.gz")
    report = replay(read(path), profile)
    assert report.first_difference is None
    assert report.agree == report.steps > 500


@pytest.mark.thorough
def test_sizes_of_huge_pages() -> None:
    """A machine with thp_anon=16K-64K:always: scenarios written by hand, most of them those of the plain machine."""
    scenarios = read(ROOT / "tests" / "data" / "mthp-linux-7.3.jsonl.gz")
    assert {scenario.thp_anon for scenario in scenarios} == {"16K-64K:always"}
    report = replay(scenarios, "linux-7.3")
    assert report.first_difference is None
    assert (report.scenarios, report.steps, report.agree, report.skipped) == (270, 2053, 2053, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12", "linux-6.18"])
def test_neighbours_come_back_with_a_page(profile: str) -> None:
    """Forked memory in swap, read, written and asked for ahead by both processes; then one of them ends."""
    report = replay(read(ROOT / "tests" / "data" / f"readahead-{profile}.jsonl.gz"), profile)
    assert report.first_difference is None
    assert (report.scenarios, report.steps, report.agree) == (37, 469, 469)


@pytest.mark.parametrize(
    "track", [Track.OFF, *(pytest.param(track, marks=pytest.mark.slow) for track in (Track.FAULT, Track.NATIVE))]
)
@pytest.mark.parametrize(("profile", "scenarios", "steps"), [("linux-6.1", 55, 877), ("linux-6.12", 57, 901)])
def test_what_pages_contain(profile: str, scenarios: int, steps: int, track: Track) -> None:
    """Scenarios written by hand about all that copies, moves or drops contents; stores fill whole pages."""
    report = replay(read(ROOT / "tests" / "data" / f"contents-{profile}.jsonl.gz"), profile, track=track)
    assert report.first_difference is None
    assert (report.scenarios, report.steps, report.agree) == (scenarios, steps, steps)


@pytest.mark.thorough
@pytest.mark.parametrize("path", _WITH_CONTENTS, ids=lambda p: p.name)
def test_recordings_of_modern_kernels_tell_what_pages_contain(path: Path) -> None:
    states = [
        seen
        for scenario in read(path)
        for step in scenario.steps
        for seen in (step.recorded or {}).get("state", {}).values()
    ]
    assert states
    assert all("contents" in seen for seen in states)
    assert any(seen["contents"] for seen in states)


@pytest.mark.thorough
@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_recording_with_five_levels(profile: str) -> None:
    """Guests with CR4.LA57: tables of level 5 too, and one more upper entry on the way to each leaf."""
    scenarios = read(ROOT / "tests" / "data" / f"la57-{profile}.jsonl.gz")
    assert all(int(scenario.header["cr4"], 16) >> 12 & 1 for scenario in scenarios)
    report = replay(scenarios, profile)
    assert report.first_difference is None
    assert (report.scenarios, report.agree) == (60, report.steps)
    assert report.steps > 500
