"""The scenario format: what a reader takes, and what it refuses and how."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.model.scenario.format import FormatError, read
from ptewalk.model.state.machine import CONTROL
from ptewalk.model.x86 import Control

SAMPLE = KERNELS["linux-6.1"]
Line = dict[str, Any]


def good() -> list[Line]:
    """A scenario of two steps without answers."""
    ops = [
        {"who": 0, "op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon", "file_page": 0, "flags": []},
        {"who": 0, "op": "write", "page": 0, "n": 4, "step": 1},
    ]
    head: Line = {"t": "scenario", "name": "s", "doc": "", "base": "0x100000000000", "steps": len(ops)}
    return [head, *({"t": "step", "name": "s", "i": i, "op": op} for i, op in enumerate(ops))]


def write(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_reads_a_good_file(tmp_path: Path) -> None:
    (scenario,) = read(write(tmp_path / "a.jsonl", good()))
    assert (scenario.name, len(scenario.steps), scenario.base) == ("s", 2, 0x100000000000)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert len(read(packed)) == 1


@pytest.mark.parametrize(
    ("registers", "changed"),
    [
        ({}, 0),
        ({"cr4": "751ef0"}, 1 << Control.LA57),
        ({"cr0": "80040033"}, 1 << Control.WP),
        ({"efer": "501"}, 1 << Control.NXE),
        ({"cr0": "80050033", "cr4": "750ef0", "efer": "d01"}, 0),
    ],
)
def test_each_register_of_the_line_counts(tmp_path: Path, registers: Line, changed: int) -> None:
    """Bits 16 of CR0, 12 of CR4, 11 of EFER; a register that is not told is the usual one."""
    head, *steps = good()
    (scenario,) = read(write(tmp_path / "a.jsonl", [head | registers, *steps]))
    assert scenario.control == CONTROL ^ changed


def _set(index: int, key: str, value: object) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        target = lines[index]
        target = target["op"] if key not in target and "op" in target else target
        target[key] = value

    return change


def _drop(index: int, key: str) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        target = lines[index]
        (target["op"] if key not in target else target).pop(key)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_set(2, "op", {"who": 0, "op": "jump"}), "x.jsonl:3: unknown verb 'jump'"),
        (_set(2, "op", []), r"x.jsonl:3: 'op' must be dict, not \[\]"),
        (_set(0, "steps", 3), "x.jsonl:1: scenario 's' is cut off after 2 of 3 steps"),
        (_set(0, "steps", 1), "x.jsonl:1: scenario 's' has 2 steps, not 1: mend 'steps'"),
        (_set(0, "base", "zz"), "x.jsonl:1: 'base' must be a hexadecimal string"),
        (_set(0, "base", "0x123"), "x.jsonl:1: 'base' must be a page-aligned user address"),
        (_set(2, "i", 5), "x.jsonl:3: step 5 where step 1 was due"),
        (_set(2, "name", "other"), "x.jsonl:3: step of 'other' inside scenario 's'"),
        (_set(2, "t", "stop"), 'x.jsonl:3: "t" must be "scenario" or "step", not \'stop\''),
        (_drop(0, "name"), "x.jsonl:1: key 'name' is missing"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, change: Callable[[list[Line]], None], text: str) -> None:
    lines = good()
    change(lines)
    with pytest.raises(FormatError, match=text.replace("(", r"\(")) as caught:
        read(write(tmp_path / "x.jsonl", lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("x.jsonl", b"{\n", "x.jsonl:1: not JSON"),
        ("x.jsonl", b"[1]\n", "x.jsonl:1: a line must be an object, not list"),
        ("x.jsonl", b"", "x.jsonl:1: no scenario in the file"),
        ("x.jsonl", b"\xff\xfe\n", "x.jsonl:1: not UTF-8"),
        ("x.jsonl", b"[" * 100000, "x.jsonl:1: not JSON"),
        ("x.jsonl.gz", b"plain text", "x.jsonl.gz:1: not a gzip file"),
        ("x.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], "cut off or damaged"),
        ("x.txt", b"", "ends in .jsonl or .jsonl.gz"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=text):
        read(tmp_path / name)


@pytest.mark.parametrize("contents", [{}, [7], [[0, 1]], [[0, 1, 7]], [["0", 1, "169d459b"]], [[0, None, "169d459b"]]])
def test_malformed_contents_are_named(tmp_path: Path, contents: object) -> None:
    lines = good()
    lines[1] |= {"ret": 0, "errno": None, "vals": [], "state": {"0": {"contents": contents}}}
    with pytest.raises(FormatError, match=r"x.jsonl:2: .*'contents'.* not "):
        read(write(tmp_path / "x.jsonl", lines))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read(tmp_path / "absent.jsonl")


def test_fuzzed_files_end_in_one_line_or_are_read(tmp_path: Path) -> None:
    rng = random.Random(7)
    text = gzip.decompress(SAMPLE.read_bytes()).split(b"\n")
    refused = 0
    for round_ in range(300):
        start = rng.randrange(len(text) - 12)
        data = bytearray(b"\n".join(text[start : start + 12]))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(4)] = bytes(rng.randrange(256) for _ in range(rng.randrange(4)))
        path = tmp_path / f"{round_}.jsonl"
        path.write_bytes(bytes(data))
        try:
            read(path)
        except FormatError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 200


PAGES = r"a run of 'pages' is \[start, n, flags, kind, id, step\]"
PTES = r"a run of 'ptes' is \[page, n, level, flags, upper, id, step\]"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        *((key, 5, f"'{key}' must be a list, not 5") for key in ("vmas", "ptes", "tables", "contents")),
        ("pages", [5], PAGES),
        ("pages", [[0, 1, "P", "a", 1]], PAGES),
        ("pages", [["0", 1, "P", "a", 1, 1]], PAGES),
        ("pages", [[0, 1, 5, "a", 1, 1]], PAGES),
        ("pages", [[0, 1, "P", 5, 1, 1]], PAGES),
        ("pages", [[0, 1, "P", "a", "1", 1]], PAGES),
        ("vmas", [[]], "an entry of 'vmas' is an object with page, n, perm and flags"),
        ("vmas", [{"n": 1, "flags": []}], "an entry of 'vmas' is an object with page, n, perm and flags"),
        ("vmas", [{"page": 1, "flags": []}], "an entry of 'vmas' is an object with page, n, perm and flags"),
        ("vmas", [{"page": 1, "n": 1, "flags": 3}], "'flags' of an area must be a list, not 3"),
        ("tables", [[3, 0, "67"]], r"a row of 'tables' is \[level, page, flags, id\]"),
        ("tables", [[3, 0, 67, 2]], r"a row of 'tables' is \[level, page, flags, id\]"),
        ("tables", [[3, 0, "67", "2"]], r"a row of 'tables' is \[level, page, flags, id\]"),
        ("root", "x", "'root' must be a number, not 'x'"),
        ("ptes", [5], PTES),
        ("ptes", [[0, 1, 1, "67", "67", 2]], PTES),
        ("ptes", [[0, 1, 1, "67", "67", 2, "1"]], PTES),
        ("ptes", [[0, 1, 1, "", "67", 2, 1]], "flags of 'ptes' must be hexadecimal, not ''"),
        ("ptes", [[0, 1, 1, "6x", "67", 2, 1]], "flags of 'ptes' must be hexadecimal, not '6x'"),
        ("ptes", [[0, 1, 1, "67", "67", "2", 1]], "the id of a run of 'ptes' must be a number or null, not '2'"),
        ("contents", [[0, 1]], r"a run of 'contents' is \[page, n, checksum\]"),
        ("contents", [[0, 1, 5]], r"a run of 'contents' is \[page, n, checksum\]"),
        ("contents", [[0, "1", "a"]], r"a run of 'contents' is \[page, n, checksum\]"),
    ],
)
def test_recorded_lists_have_their_shape(tmp_path: Path, key: str, value: object, text: str) -> None:
    lines = good()
    lines[2] |= {"ret": 0, "vals": [], "state": {"0": {key: value}}}
    with pytest.raises(FormatError, match=f"x.jsonl:3: {text}"):
        read(write(tmp_path / "x.jsonl", lines))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thp_anon", ""),
        ("thp_anon", "64K:always"),
        ("thp_anon", "32K:inherit"),
        ("thp_anon", {"64K": "always"}),
        ("cmdline", "quiet thp_anon=16K-64K:madvise"),
        ("cmdline", "thp_anon=16K-64K:always thp_anon=128K:always"),
        ("machine", {"boot": ["thp_anon=64K:madvise"]}),
    ],
)
def test_other_sizes_of_huge_pages_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    lines = good()
    lines[0][key] = value
    says = rf"x.jsonl:1: '{key}' is .*\(thp_anon\) 16K-64K:always alone is modelled: "
    with pytest.raises(FormatError, match=says) as caught:
        read(write(tmp_path / "x.jsonl", lines))
    assert "\n" not in str(caught.value)
    lines[0] = good()[0] | {"doc": "as with thp_anon=64K:always"}
    (plain,) = read(write(tmp_path / "x.jsonl", lines))
    assert plain.thp_anon == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thp_anon", "16K-64K:always"),
        ("cmdline", "quiet thp_anon=16K-64K:always"),
        ("boot", ["thp_anon=16K-64K:always"]),
    ],
)
def test_the_sizes_of_huge_pages_that_are_modelled(tmp_path: Path, key: str, value: Any) -> None:
    lines = good()
    lines[0][key] = value
    (scenario,) = read(write(tmp_path / "x.jsonl", lines))
    assert scenario.thp_anon == "16K-64K:always"
