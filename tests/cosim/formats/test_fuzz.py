"""Malformed input gets one line that names file and line: never a traceback, whatever is broken."""

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.replay import ReplayJob, replay_model
from ptewalk.cosim.formats.samples import KERNELS, WALKS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.formats.walks import read_walks

SEED = 20131
ROUNDS = 1000

STRANGE: tuple[Any, ...] = (None, -1, 0, 1 << 70, 1.5, True, "", "x", "-", "0x", "zz:1", [], [1], {}, {"a": 1}, "é\0")


def broken_bytes(rng: random.Random, text: bytes) -> bytes:
    """The text with a few bytes changed, lost, doubled, or its end cut off."""
    data = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at : at + rng.choice((1, 2, 40))]
        elif what == 2:
            data[at:at] = data[at : at + rng.choice((1, 5, 200))]
        else:
            del data[at:]
    return bytes(data)


def broken_value(rng: random.Random, value: Any) -> Any:
    """The JSON value with one part, anywhere in it, replaced or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.15:
            del changed[key]
        else:
            changed[key] = broken_value(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], broken_value(rng, value[place]), *value[place + 1 :]]
    return rng.choice(STRANGE)


def read_all(read: Callable[[Path], object], path: Path) -> bool:
    """False when the reader refuses the file, with one line that names it."""
    try:
        read(path)
    except ToolError as error:
        text = str(error)
        assert text.startswith(str(path)), text
        assert "\n" not in text
        assert len(text) < 1000
        return False
    return True


def lines_of(sample: Path, count: int) -> list[bytes]:
    with gzip.open(sample, "rb") as file:
        return [line for line, _ in zip(file, range(count), strict=False)]


READERS: dict[str, tuple[Callable[[Path], object], Path]] = {
    "scenarios": (lambda path: load([path]), KERNELS["linux-6.12"]),
    "walks": (read_walks, WALKS),
}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", READERS)
def test_broken_bytes(kind: str, tmp_path: Path) -> None:
    read, sample = READERS[kind]
    rng = random.Random(SEED)
    text = b"".join(lines_of(sample, 30))
    path = tmp_path / "broken.jsonl"
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(broken_bytes(rng, text))
        refused += not read_all(read, path)
    assert refused > ROUNDS // 2


@pytest.mark.thorough
@pytest.mark.parametrize("kind", READERS)
def test_broken_values(kind: str, tmp_path: Path) -> None:
    """Well-formed JSON with something wrong in it."""
    read, sample = READERS[kind]
    rng = random.Random(SEED)
    lines = lines_of(sample, 30)
    path = tmp_path / "broken.jsonl"
    refused = 0
    for _ in range(ROUNDS):
        place = rng.randrange(len(lines))
        changed = json.dumps(broken_value(rng, json.loads(lines[place]))).encode() + b"\n"
        path.write_bytes(b"".join([*lines[:place], changed, *lines[place + 1 :]]))
        refused += not read_all(read, path)
    assert refused > ROUNDS // 4


@pytest.mark.thorough
@pytest.mark.parametrize("kind", READERS)
def test_broken_gzip(kind: str, tmp_path: Path) -> None:
    read, sample = READERS[kind]
    rng = random.Random(SEED)
    text = gzip.compress(b"".join(lines_of(sample, 30)), mtime=0)
    path = tmp_path / "broken.jsonl.gz"
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(broken_bytes(rng, text))
        refused += not read_all(read, path)
    assert refused > ROUNDS // 2


@pytest.mark.parametrize("kind", READERS)
def test_the_place_is_named(kind: str, tmp_path: Path) -> None:
    read, sample = READERS[kind]
    lines = lines_of(sample, 30)
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"".join([*lines[:7], b"{not json\n", *lines[7:]]))
    with pytest.raises(ToolError) as error:
        read(path)
    assert re.match(rf"{re.escape(str(path))}:8: ", str(error.value))


@pytest.mark.thorough
def test_what_is_accepted_can_be_replayed(tmp_path: Path) -> None:
    """A scenario with strange values that the reader takes is run to its end, or refused in one line."""
    rng = random.Random(SEED)
    lines = lines_of(KERNELS["linux-6.12"], 200)
    starts = [number for number, line in enumerate(lines) if json.loads(line)["t"] == "scenario"]
    path = tmp_path / "broken.jsonl"
    ran = refused = 0
    for _ in range(ROUNDS):
        first = rng.randrange(len(starts) - 1)
        changed = [json.loads(line) for line in lines[starts[first] : starts[first + 1]]]
        place = rng.randrange(len(changed))
        if "op" in changed[place]:
            changed[place]["op"] = broken_value(rng, changed[place]["op"])
        else:
            changed[place] = broken_value(rng, changed[place])
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        try:
            replay_model(ReplayJob((str(path),), "linux-6.12"))
        except ToolError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            ran += 1
    assert ran > ROUNDS // 20
    assert refused > ROUNDS // 4
