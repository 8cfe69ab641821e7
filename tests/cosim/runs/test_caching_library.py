"""Recorded walks and scenarios through an MMU that caches."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.runs.caching_library import CachingLibrary

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [None, 3])
def test_recorded_walks_three_times(seed: int | None) -> None:
    """From empty caches and warm ones as four engines agreed, then under changed control as the model says."""
    told = CachingLibrary.make().recorded(WALKS, seed=seed)
    assert (told["cases"], told["agree"], told["differ"], told["skipped"]) == (3000, 3000, 0, 0)
    assert told["accesses"] == 9000
    assert told["hits"] - told["changed_hits"] == _ok(WALKS)
    assert told["changed_hits"] > 200


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
