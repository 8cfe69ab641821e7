"""Defects that no run of the gateware can tell of are noticed by tests: of bench, export, bus, table engine, more."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .changes import ROOT
from .workshop import Workshop

MUTANTS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("bench.toml").read_text())["mutant"]
TESTS = sorted({test for mutant in MUTANTS for test in mutant["tests"]})
COUNTS = {
    "rtl/export.py": 2,
    "rtl/layouts.py": 1,
    "rtl/bridge/writes.py": 3,
    "rtl/bridge/outstanding.py": 1,
    "rtl/bridge/faults.py": 1,
    "cosim/bench/records.py": 1,
    "cosim/bench/conditions.py": 2,
    "cosim/bench/scoreboard.py": 3,
    "cosim/checks/relation.py": 2,
    "cosim/checks/golden_tlb.py": 1,
    "cosim/checks/golden_arrays.py": 3,
    "model/paging_bulk.py": 1,
    "rtl/engine/change.py": 1,
    "rtl/engine/table_engine.py": 1,
    "rtl/engine/lines.py": 2,
    "rtl/engine/fetcher.py": 2,
    "rtl/engine/mover.py": 6,
    "rtl/engine/lister.py": 3,
    "rtl/engine/pairs.py": 2,
    "rtl/engine/report.py": 1,
    "rtl/bus/lines.py": 1,
    "rtl/bus/monitor.py": 6,
    "rtl/bus/exclusive.py": 2,
    "rtl/bus/atomic.py": 4,
    "rtl/bus/rules.py": 1,
    "rtl/bus/lock.py": 1,
    "rtl/bus/self_test.py": 2,
    "rtl/bus/slots.py": 1,
    "rtl/bus/gate.py": 3,
    "rtl/bus/qos.py": 1,
    "rtl/registers/soft_reset.py": 2,
    "rtl/registers/file.py": 1,
    "rtl/maintenance.py": 1,
    "rtl/waits.py": 1,
    "rtl/flights.py": 1,
    "rtl/log/dirty_log.py": 3,
    "rtl/registers/log.py": 2,
    "rtl/registers/unit.py": 2,
    "rtl/registers/engine.py": 1,
    "rtl/registers/rings.py": 3,
}
"""Mutants by file: one that is lost must be noticed."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A copy of the tree."""
    return Workshop(tmp_path_factory.mktemp("workshop") / "copy")


def run(workshop: Workshop, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """The fast tests of these files, in the copy, until one fails."""
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", "."]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=workshop.folder,
        env=os.environ | {"PYTHONPATH": str(workshop.packages)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_all_are_there() -> None:
    assert Counter(mutant["file"] for mutant in MUTANTS) == COUNTS
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_its_text_stands_once(mutant: dict[str, Any]) -> None:
    assert (ROOT / mutant["file"]).read_text("utf-8").count(mutant["text"]) == 1


@pytest.mark.slow
@pytest.mark.share(2)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_noticed(mutant: dict[str, Any], workshop: Workshop) -> None:
    path = workshop.folder / mutant["file"]
    text = path.read_text("utf-8")
    path.write_text(text.replace(mutant["text"], mutant["replacement"]), "utf-8")
    try:
        done = run(workshop, mutant["tests"])
    finally:
        path.write_text(text, "utf-8")
    assert done.returncode == 1, f"{mutant['why']}: not noticed\n{done.stdout[-2000:]}{done.stderr}"
    assert "FAILED" in done.stdout


@pytest.mark.slow
@pytest.mark.share(6)
@pytest.mark.parametrize("file", TESTS)
def test_nothing_is_noticed_without_a_defect(file: str, workshop: Workshop) -> None:
    done = run(workshop, [file])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
