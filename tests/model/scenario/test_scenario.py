"""The scenario format: what is refused and how, running, and that the comparison sees every field."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.compare import differences
from ptewalk.model.scenario.format import FormatError, Scenario, read
from ptewalk.model.scenario.numbering import TableIds
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import replay

SAMPLE = Path(__file__).resolve().parents[3] / "cosim" / "formats" / "data" / "linux-6.1-sample.jsonl.gz"
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
        (_drop(2, "page"), "x.jsonl:3: key 'page' is missing"),
        (_drop(1, "kind"), "x.jsonl:2: key 'kind' is missing"),
        (_set(2, "n", -1), "x.jsonl:3: negative size: n is -1"),
        (_set(2, "page", -1), r"x.jsonl:3: page -1 is out of range"),
        (_set(2, "page", 1 << 40), r"x.jsonl:3: page 1099511627776 is out of range"),
        (_set(2, "page", "7"), r"x.jsonl:3: 'page' must be int, not '7'"),
        (_set(2, "page", True), r"x.jsonl:3: 'page' must be int, not True"),
        (_set(2, "step", 0), "x.jsonl:3: 'step' must be at least 1, not 0"),
        (_set(1, "prot", "q"), "x.jsonl:2: 'prot' is made of r, w and x"),
        (_set(1, "kind", "zzz"), "x.jsonl:2: unknown kind of mapping 'zzz'"),
        (_set(1, "flags", ["huge"]), "x.jsonl:2: unknown flag 'huge' of mmap"),
        (_set(0, "steps", 3), "x.jsonl:1: scenario 's' is cut off: 2 steps, 3 announced"),
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


def sample(name: str) -> Scenario:
    return next(scenario for scenario in read(SAMPLE) if scenario.name == name)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("ret",), 5, "ret"),
        (("errno",), "EIO", "errno"),
        (("vals", 0), "maperr", "vals"),
        (("state", "0", "pages", 0, 2), "P", "pages"),
        (("state", "0", "pages", 0, 3), "z", "pages"),
        (("state", "0", "pages", 0, 4), 99, "pages"),
        (("state", "0", "pages", 0, 1), 7, "pages"),
        (("state", "0", "vmas", 0, "n"), 9, "vmas"),
        (("state", "0", "vmas", 0, "perm"), "r--p", "vmas"),
        (("state", "0", "vmas", 0, "flags"), [], "vmas"),
        (("state", "0", "vmas", 0, "anon_huge_kb"), 2048, "vmas"),
        (("state", "0", "root"), 9, "root"),
        (("state", "0", "tables", 0, 3), 9, "tables"),
        (("state", "0", "tables", 0, 2), "65", "tables"),
        (("state", "0", "ptes", 0, 3), "8000000000000867", "ptes"),
        (("state", "0", "ptes", 0, 4), "67.67.27", "ptes"),
        (("state", "0", "ptes", 0, 5), 9, "ptes"),
        (("state", "0", "contents", 0, 0), 1, "contents[0][0]"),
        (("state", "0", "contents", 0, 1), 1, "contents[0][1]"),
        (("state", "0", "contents", 0, 2), "169d459c", "contents[0][0]"),
        (("state", "0", "contents"), [], "contents[0][0]"),
    ],
)
def test_every_field_is_compared(path: tuple[str | int, ...], value: object, field: str) -> None:
    scenario = sample("h01_anon_basic")
    index = 1
    recorded = copy.deepcopy(scenario.steps[index].recorded)
    if value == "8000000000000867":
        value = "8000000000000865"
    target: Any = recorded
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    run, tables = Replay(scenario, PROFILES["linux-6.1"]), TableIds()
    for at in range(index + 1):
        outcome = run.step()
        assert differences(scenario, at, outcome, tables=tables) == []
    scenario.steps[index].recorded = recorded
    found = differences(scenario, index, outcome, tables=tables)
    assert found and found[0].field.startswith(field)
    assert f"h01_anon_basic step 1: {field}" in str(found[0])


def test_a_missing_process_is_a_difference() -> None:
    scenario = sample("h01_anon_basic")
    recorded = scenario.steps[0].recorded
    assert recorded is not None
    recorded["state"]["1"] = {"pages": [], "vmas": []}
    run = Replay(scenario, PROFILES["linux-6.1"])
    assert [d.field for d in differences(scenario, 0, run.step())] == ["state"]


def test_accessed_bits_are_ignored_only_behind_a_reset() -> None:
    scenario = sample("x10_clear1_accessed")
    unsure = scenario.header["a_unsure_from"]
    run = Replay(scenario, PROFILES["linux-6.1"])
    for index in range(len(scenario.steps)):
        outcome = run.step()
        changed = copy.deepcopy(outcome)
        for snapshot in changed.state.values():
            for entry in snapshot.ptes:
                entry[3] = format(int(entry[3], 16) ^ 0x20, "x")
        has_leaves = any(snapshot.ptes for snapshot in outcome.state.values())
        assert differences(scenario, index, outcome) == []
        assert bool(differences(scenario, index, changed)) == (has_leaves and index < unsure)


def test_the_wrong_profile_is_noticed() -> None:
    report = replay(read(SAMPLE)[:30], "linux-seed")
    assert report.differ > 20 and report.first_difference is not None


def test_steps_without_answers_are_counted_as_skipped(tmp_path: Path) -> None:
    report = replay(read(write(tmp_path / "a.jsonl", good())), "linux-6.1")
    assert (report.agree, report.differ, report.skipped) == (0, 0, 2)
    assert report.skipped_scenarios == {"s": "step 0: no recorded answer"}


def test_what_the_model_cannot_follow_is_skipped_by_name(tmp_path: Path) -> None:
    lines = good()
    lines[2]["op"] = {"who": 3, "op": "exit"}
    report = replay(read(write(tmp_path / "a.jsonl", lines)), "linux-6.1")
    assert report.skipped == 2 and report.steps == 2
    assert "process 3 does not live" in str(report.skipped_scenarios)


@pytest.mark.parametrize(("profile", "switch"), [("linux-9", "always"), ("linux-seed", "sometimes")])
def test_unknown_profile_or_switch(profile: str, switch: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        replay([], profile, pagemap_v2=switch)


@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
def test_other_ways_of_tracking_agree_but_for_lost_stores(track: Track) -> None:
    report = replay(read(SAMPLE), "linux-6.1", track=track)
    assert set(report.differing) == {
        "t01_clean_into_sd_mprotect",
        "t02_same_written_before",
        "t04_madvise_merge",
        "t05_mremap_table_move_shared",
    }
    assert all("'PFXD'" in str(d) and "'PFX'" in str(d) for d in report.differing.values())
