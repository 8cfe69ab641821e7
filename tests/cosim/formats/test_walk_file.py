"""The walk format: reading, writing, checking and counting, and that each check can fail."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.walks import WalkTally, check, merge_tallies, other_machine, tally_model
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.formats.walks import WalkCase, WalkFileError, read_walks, run_on_model, write_walks
from ptewalk.cosim.stimulus.walks import random_cases
from ptewalk.model.linux import Track
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, State, Translated
from ptewalk.model.x86 import Access, Outcome

SAMPLE = WALKS

# A user write through three tables to a read-only page: #PF with code 7.
LINE: dict[str, Any] = {
    "i": 28,
    "f": "A",
    "k": "W",
    "u": 1,
    "c": 257,
    "va": "7feabc1ff8",
    "kr": 5,
    "e": ["204000:203007", "203ff8:202007", "202aa8:201007", "201e08:4117a005"],
    "o": ["PF", 7],
    "t": 3,
    "v": "qbBu",
    "ad": [0, 0, 0, 0],
    "aq": [32, 32, 32, 0],
}
CASE = WalkCase(
    number=28,
    family="A",
    kind="W",
    user=True,
    control=257,
    linear=0x7FEABC1FF8,
    entries=((0x204000, 0x203007), (0x203FF8, 0x202007), (0x202AA8, 0x201007), (0x201E08, 0x4117A005)),
    outcome=Outcome.PAGE_FAULT,
    value=7,
    added=(0, 0, 0, 0),
    eager=(32, 32, 32, 0),
    pkru=5,
    voices="qbBu",
)
BEFORE = dict(CASE.entries)


def changed(**keys: Any) -> dict[str, Any]:
    return {**LINE, **keys}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in LINE.items() if name != key}


def write(path: Path, *lines: Any) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# Reading and writing.


@pytest.mark.parametrize("name", ["walks.jsonl", "walks.jsonl.gz"])
def test_read(tmp_path: Path, name: str) -> None:
    more = changed(i=29, k="I", u=0, o=["OK", "4117aff8"], ks=9, t=1, w={"q": 5}, root="7000")
    del more["aq"], more["kr"]
    first, second = read_walks(write(tmp_path / name, LINE, more))
    assert first == CASE
    assert second == replace(
        CASE,
        number=29,
        kind="I",
        user=False,
        outcome=Outcome.OK,
        value=0x4117AFF8,
        eager=None,
        pkru=0,
        pkrs=9,
        trust=1,
        others={"q": 5},
        root=0x7000,
    )


def test_sample_is_written_as_it_was_read(tmp_path: Path) -> None:
    cases = read_walks(SAMPLE)
    assert len(cases) == 3000
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    write_walks(plain, cases)
    write_walks(packed, cases)
    assert plain.read_bytes() == gzip.decompress(SAMPLE.read_bytes()) == gzip.decompress(packed.read_bytes())
    assert packed.read_bytes()[4:8] == bytes(4), "no time in the gzip header: the same cases give the same bytes"


def test_written_cases_of_every_kind_are_read_back(tmp_path: Path) -> None:
    cases = random_cases(np.random.default_rng(3), 100)
    cases.append(replace(CASE, root=0x12_3456_7000, others=["x"], trust=0))
    write_walks(tmp_path / "a.jsonl", cases)
    assert read_walks(tmp_path / "a.jsonl") == cases


def test_state_request_and_memory() -> None:
    assert CASE.state() == State(0x204000, 1, 5)
    assert CASE.state(track=Track.FAULT, saved_dirty=True, soft_dirty=False) == State(
        0x204000, 1, 5, 0, Track.FAULT, True, False
    )
    assert CASE.request() == Request(0x7FEABC1FF8, Access.WRITE, True, False, True)
    five = replace(CASE, control=0x80, kind="I", user=False)
    assert five.state() == State(0x205000, 0x80, 5)
    assert five.request() == Request(0x7FEABC1FF8, Access.READ, False, True, False)
    assert replace(CASE, root=0x9000).state().root == 0x9000
    assert [replace(CASE, kind=kind).request().access for kind in "RX"] == [Access.READ, Access.FETCH]
    memory = CASE.memory()
    assert memory.physical_bits == 40
    assert memory.frames() == [0x201, 0x202, 0x203, 0x204] == CASE.table_frames()
    assert {address: memory.load(address) for address in BEFORE} == BEFORE


def test_a_line_needs_only_what_is_compared(tmp_path: Path) -> None:
    bare = {key: LINE[key] for key in ("k", "u", "c", "va", "e", "o")}
    path = write(tmp_path / "a.jsonl", LINE, bare)
    _, case = read_walks(path)
    assert (case.number, case.family, case.trust, case.voices) == (2, "-", 3, "")
    assert case.added is None and case.eager is None and case.pkru == 0
    write_walks(tmp_path / "b.jsonl", [case])
    assert read_walks(tmp_path / "b.jsonl") == [case]
    result, after = run_on_model(case)
    assert check(case, result, after) is None
    address, value = case.entries[0]
    assert check(case, result, after | {address: value ^ 0x200}) is None, "without ad the entries are not compared"
    assert check(case, result, after | {0x204008: 1}) is not None, "words that are no entries are"
    assert check(replace(case, value=case.value ^ 1), result, after) is not None


def of_another_machine(physical_bits: int, gigabyte_pages: bool) -> list[WalkCase]:
    """Walks of the sample, as a machine of another width answers."""
    cases = []
    for case in read_walks(SAMPLE)[::2]:
        other = replace(case, physical_bits=physical_bits, gigabyte_pages=gigabyte_pages, eager=None)
        result, after = run_on_model(other, eager=False)
        outcome, value = Outcome.GENERAL_PROTECTION, 0
        if isinstance(result, Translated):
            outcome, value = Outcome.OK, result.physical
        elif isinstance(result, PageFault):
            outcome, value = Outcome.PAGE_FAULT, result.code
        added = tuple(after[address] ^ entry for address, entry in case.entries)
        changed = replace(other, outcome=outcome, value=value, added=added)
        eager = tuple(run_on_model(other)[1][address] ^ entry for address, entry in case.entries)
        cases.append(replace(changed, eager=eager) if outcome == Outcome.PAGE_FAULT and eager != added else changed)
    return cases


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("bits", "gigabyte", "hint"),
    [
        (46, True, "All walks tried agree with --physical-bits 46"),
        (40, False, "All walks tried agree with --physical-bits 32 to 40 and --no-gigabyte-pages"),
        (52, False, "All walks tried agree with --physical-bits 52 and --no-gigabyte-pages"),
    ],
)
def test_a_recording_of_another_width_is_named(tmp_path: Path, bits: int, gigabyte: bool, hint: str) -> None:
    cases = of_another_machine(bits, gigabyte)
    reachable = [case for case in cases if case.outcome != Outcome.OK or not case.value >> 40]
    write_walks(tmp_path / "a.jsonl", reachable)
    assert tally_model(read_walks(tmp_path / "a.jsonl", physical_bits=bits, gigabyte_pages=gigabyte)).differ == 0
    usual = read_walks(tmp_path / "a.jsonl")
    assert tally_model(usual).differ > 5
    assert (other_machine(usual) or "").endswith(hint)
    assert other_machine(read_walks(SAMPLE)[:200]) is None


def test_a_difference_of_another_kind_has_no_hint() -> None:
    cases = read_walks(SAMPLE)[:300]
    assert other_machine([replace(cases[0], value=cases[0].value ^ 0x1000), *cases[1:]]) is None


def test_an_address_beyond_the_width_names_the_option(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", changed(e=["10000000000:1"], ad=[0], aq=[0]))
    with pytest.raises(WalkFileError, match=r"below 2\*\*40, .*; give the machine's width with --physical-bits"):
        read_walks(path)
    assert read_walks(path, physical_bits=46)[0].physical_bits == 46


# Errors: the file, the line, the rule, the value.

_MALFORMED = [
    ("{", r"each line must be one JSON object, this one is not"),
    ("[1]", r"each line must be a JSON object, not \[1\]"),
    *((without(key), f"key '{key}' is missing") for key in ("k", "u", "c", "va", "e", "o")),
    (changed(i="1"), r"key 'i' must be a whole number from 0 to \d+, not \"1\""),
    (changed(i=True), r"key 'i' must be a whole number from 0 to \d+, not true"),
    (changed(f="AB"), "key 'f' must be one capital letter, not \"AB\""),
    (changed(k="Z"), "key 'k' must be R, W, X or I, not \"Z\""),
    (changed(k=1), "key 'k' must be R, W, X or I, not 1"),
    (changed(u=2), "key 'u' must be a whole number from 0 to 1, not 2"),
    (changed(c=512), "key 'c' must be a whole number from 0 to 511, not 512"),
    (changed(va="xyz"), r"key 'va' must be hex digits below 2\*\*64, a multiple of 8, not \"xyz\""),
    (changed(va="0x10"), r"key 'va' must be hex digits"),
    (changed(va="11"), r"key 'va' must be hex digits below 2\*\*64, a multiple of 8, not \"11\""),
    (changed(va="1" * 17), r"key 'va' must be hex digits below 2\*\*64"),
    (changed(va=8), "key 'va' must be hex digits .*, not 8"),
    (changed(kr=1 << 32), "key 'kr' must be a whole number from 0 to 4294967295, not 4294967296"),
    (changed(ks=-1), "key 'ks' must be a whole number from 0 to 4294967295, not -1"),
    (changed(e={}), "key 'e' must be a list, not {}"),
    (changed(e=["204000"]), 'key \'e\' must hold "physical:value" texts, not "204000"'),
    (changed(e=[7]), "key 'e' must hold \"physical:value\" texts, not 7"),
    (changed(e=["204001:1"]), r"key 'e' must be hex digits below 2\*\*40, a multiple of 8, not \"204001\""),
    (changed(e=["10000000000:1"]), r"key 'e' must be hex digits below 2\*\*40"),
    (changed(e=["204000:"]), r"key 'e' must be hex digits below 2\*\*64, not \"\""),
    (changed(e=["8:1", "8:2"]), "key 'e' must name each physical address once, 0x8 stands twice"),
    (changed(o=["OK"]), r"key 'o' must be \[\"OK\", hex\], \[\"PF\", number\] or \[\"GP\"\], not \[\"OK\"\]"),
    (changed(o=["OK", "10000000000"]), r"key 'o' must be hex digits below 2\*\*40"),
    (changed(o=["PF", "7"]), "key 'o' must be a whole number from 0 to 65535, not \"7\""),
    (changed(o=["XX", 1]), "key 'o' must be"),
    (changed(t=4), "key 't' must be a whole number from 0 to 3, not 4"),
    (changed(v=3), "key 'v' must be text, not 3"),
    (changed(ad=[0, 0, 0]), "key 'ad' must hold one number for each of the 4 entries of 'e', not 3"),
    (changed(ad=[0, 0, 0, 1]), "key 'ad' must hold 0, 32, 64 or 96, not 1"),
    (changed(aq=[0, 0, 0, False]), "key 'aq' must hold 0, 32, 64 or 96, not false"),
    (changed(o=["GP"]), "key 'aq' is only for an outcome of PF"),
    (changed(root="1001"), r"key 'root' must be hex digits below 2\*\*40, a multiple of 4096, not \"1001\""),
    (changed(e="x" * 100), r"key 'e' must be a list, not \"x{56}\.\.\.$"),
]


@pytest.mark.parametrize(("line", "message"), _MALFORMED)
def test_malformed_lines(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "bad.jsonl.gz", LINE, line, LINE)
    with pytest.raises(WalkFileError, match=message) as caught:
        read_walks(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_broken_files(tmp_path: Path) -> None:
    def message(name: str, data: bytes | None) -> str:
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(WalkFileError) as caught:
            read_walks(path)
        text = str(caught.value)
        assert text.startswith(str(path))
        return text.removeprefix(str(path))

    packed = gzip.compress(b"".join(json.dumps(LINE).encode() + b"\n" for _ in range(50)))
    assert message("absent.jsonl", None) == ": cannot be read: No such file or directory"
    assert message("walks.txt", b"") == ": a walk file's name must end in .jsonl or .jsonl.gz"
    assert message("empty.jsonl", b"") == ": a walk file must hold at least one walk, this one is empty"
    assert (
        message("empty.jsonl.gz", gzip.compress(b"")) == ": a walk file must hold at least one walk, this one is empty"
    )
    plain = b"{}\n"
    assert message("plain.jsonl.gz", plain) == ": a file that ends in .gz must be gzip data, this one is not"
    assert message("cut.jsonl.gz", packed[:-30]) == ": the gzip data is cut off or damaged"
    assert message("bad.jsonl.gz", packed[:40] + b"\xff\xff" + packed[42:]) == ": the gzip data is cut off or damaged"
    assert message("bytes.jsonl", json.dumps(LINE).encode() + b'\n\xff"\n') == ":2: a walk file must be UTF-8 text"
    cut = json.dumps(LINE).encode()
    assert message("cut.jsonl", cut + b"\n" + cut[:50]) == (
        ":2: each line must be one JSON object, this one is not, "
        "and its end of line is missing: the file may be cut off"
    )
    assert message("blank.jsonl", cut + b"\n\n") == ":2: each line must be one JSON object, this one is not"


def test_a_directory_is_no_walk_file(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(WalkFileError, match="cannot be read: Is a directory"):
        read_walks(tmp_path / "d.jsonl")
    with pytest.raises(ToolError, match="d.jsonl: Is a directory; name a file"):
        write_walks(tmp_path / "d.jsonl", [CASE])
    with pytest.raises(WalkFileError, match=r"must end in .jsonl or .jsonl.gz"):
        write_walks(tmp_path / "d.json", [CASE])
    assert not (tmp_path / "d.json").exists()


# The check.

OK_CASE = replace(
    CASE,
    kind="R",
    entries=(*CASE.entries[:3], (0x201E08, 0x4117A007)),
    outcome=Outcome.OK,
    value=0x4117AFF8,
    added=(32, 32, 32, 32),
    eager=None,
)
OK_AFTER = {address: value | 32 for address, value in OK_CASE.entries}
OK = Translated(0x4117AFF8, 1, False, False, False)
FAULT = PageFault(7)
GP_CASE = replace(OK_CASE, outcome=Outcome.GENERAL_PROTECTION, value=0, added=(0, 0, 0, 0))


def test_the_model_agrees_with_the_typed_cases() -> None:
    for case in (CASE, OK_CASE):
        for eager in (False, True):
            assert check(case, *run_on_model(case, eager=eager)) is None


@pytest.mark.parametrize(
    ("case", "result", "expected"),
    [
        (CASE, PageFault(5), "expected PF 0x7, seen PF 0x5"),
        (CASE, OK, "expected PF 0x7, seen OK 0x4117aff8"),
        (CASE, GeneralProtection(), "expected PF 0x7, seen GP"),
        (OK_CASE, BusFault(), "expected OK 0x4117aff8, seen bus error"),
        (OK_CASE, replace(OK, physical=0x4117AFF0), "expected OK 0x4117aff8, seen OK 0x4117aff0"),
        (GP_CASE, FAULT, "expected GP, seen PF 0x7"),
    ],
)
def test_outcomes_differ(case: WalkCase, result: Result, expected: str) -> None:
    after = OK_AFTER if case is OK_CASE else dict(case.entries)
    assert check(case, result, after) == expected


@pytest.mark.parametrize("mask", range(8))
def test_any_set_of_passed_entries_may_have_a_after_a_fault(mask: int) -> None:
    after = {address: value | (mask >> place & 1) << 5 for place, (address, value) in enumerate(CASE.entries)}
    assert check(CASE, FAULT, after) is None


@pytest.mark.parametrize("address", list(BEFORE))
@pytest.mark.parametrize("bit", [0, 1, 5, 6, 11, 12, 63])
def test_nothing_else_may_differ_after_a_fault(address: int, bit: int) -> None:
    after = BEFORE | {address: BEFORE[address] ^ 1 << bit}
    difference = check(CASE, FAULT, after)
    if bit == 5 and address != 0x201E08:
        assert difference is None
    else:
        assert difference == f"entry at {address:#x}: expected {BEFORE[address]:#x}, seen {after[address]:#x}"


@pytest.mark.parametrize("address", list(BEFORE))
@pytest.mark.parametrize("bit", [0, 5, 6, 11])
def test_nothing_may_differ_when_all_is_well(address: int, bit: int) -> None:
    assert check(OK_CASE, OK, OK_AFTER) is None
    assert check(OK_CASE, OK, OK_AFTER | {address: OK_AFTER[address] ^ 1 << bit}) is not None
    assert check(GP_CASE, GeneralProtection(), dict(GP_CASE.entries)) is None
    gp_after = {**dict(GP_CASE.entries), address: dict(GP_CASE.entries)[address] ^ 1 << bit}
    assert check(GP_CASE, GeneralProtection(), gp_after) is not None


def test_a_lost_entry_and_a_changed_neighbour_are_seen() -> None:
    lost = {address: value for address, value in OK_AFTER.items() if address != 0x202AA8}
    assert check(OK_CASE, OK, lost) == "entry at 0x202aa8: expected 0x201027, seen 0x0"
    assert check(OK_CASE, OK, OK_AFTER | {0x203008: 1}) == (
        "word at 0x203008 of a table, no entry of the walk: expected 0x0, seen 0x1"
    )


def test_without_aq_no_entry_may_have_a() -> None:
    case = replace(CASE, eager=None)
    assert check(case, FAULT, BEFORE) is None
    assert check(case, FAULT, BEFORE | {0x204000: 0x203027}) is not None


def test_a_on_a_faulting_1_gib_leaf_only_where_tolerated() -> None:
    entries = ((0x204000, 0x203007), (0x203FF8, 0x40000085))
    for eager in ((32, 32), (32, 0)):
        case = replace(CASE, entries=entries, added=(0, 0), eager=eager)
        assert check(case, FAULT, dict(entries)) is None
        marked = {0x204000: 0x203027, 0x203FF8: 0x400000A5}
        assert check(case, FAULT, marked) == "entry at 0x203ff8: expected 0x40000085, seen 0x400000a5"
        assert check(case, FAULT, marked, marks_large_before_check=True) is None
        assert check(case, FAULT, marked | {0x203FF8: 0x400000E5}, marks_large_before_check=True) is not None
    assert check(CASE, FAULT, BEFORE | {0x201E08: 0x4117A025}, marks_large_before_check=True) is not None


def test_a_1_gib_leaf_is_tolerated_only_where_the_walk_comes_to_it() -> None:
    # Not present; below an entry that is not present; below one with a reserved bit; not a fault at all.
    for upper, leaf in ((0x203007, 0x40000084), (0x203006, 0x40000085), (0x203087, 0x40000085)):
        entries = ((0x204000, upper), (0x203FF8, leaf))
        case = replace(CASE, entries=entries, added=(0, 0), eager=None)
        assert check(case, FAULT, dict(entries), marks_large_before_check=True) is None
        marked = {0x204000: upper, 0x203FF8: leaf | 32}
        assert check(case, FAULT, marked, marks_large_before_check=True) is not None
    entries = ((0x204000, 0x203007), (0x203FF8, 0x40000085))
    case = replace(GP_CASE, entries=entries, added=(0, 0))
    marked = {0x204000: 0x203007, 0x203FF8: 0x400000A5}
    assert check(case, GeneralProtection(), marked, marks_large_before_check=True) is not None


def test_aq_makes_nothing_but_a_after_a_fault_optional() -> None:
    dirty = BEFORE | {0x204000: BEFORE[0x204000] | 64}
    assert check(replace(CASE, eager=(96, 32, 32, 0)), FAULT, dirty) is not None
    assert check(replace(OK_CASE, added=(0, 32, 32, 32), eager=(32, 32, 32, 32)), OK, OK_AFTER) is not None


def test_one_entry_at_several_levels_counts_as_the_union() -> None:
    # The root's entry 0 points to the root itself: a user read, refused at the leaf, by one entry used at four levels.
    case = replace(
        CASE,
        family="H",
        kind="R",
        linear=0,
        entries=((0x204000, 0x204003),),
        value=5,
        added=(0,),
        eager=(32,),
    )
    assert check(case, *run_on_model(case)) is None
    assert check(case, *run_on_model(case, eager=False)) is None
    assert check(case, PageFault(5), {0x204000: 0x204063}) is not None


# The tally.


def test_tally() -> None:
    tally = WalkTally()
    tally.add(CASE, None)
    tally.add(replace(CASE, number=30), "this and that")
    tally.add(replace(CASE, number=31), "later")
    tally.skip(replace(CASE, number=32), "no such thing")
    tally.skip(replace(CASE, number=33), "no such thing")
    tally.add(replace(CASE, trust=1), "an engine differs")
    tally.add(replace(CASE, trust=1), None)
    tally.skip(replace(CASE, trust=0), "no such thing")
    assert tally.as_json() == {
        "cases": 8,
        "agree": 1,
        "differ": 2,
        "skipped": 2,
        "first_difference": "case 30 (family A): this and that",
        "skipped_cases": {"no such thing": [32, 33]},
        "other_trust": {
            "0": {"cases": 1, "agree": 0, "differ": 0, "skipped": 1},
            "1": {"cases": 2, "agree": 1, "differ": 1, "skipped": 0},
        },
    }


def test_merged_tallies_count_as_one() -> None:
    """Whatever is counted in two parts is what is counted in one; nothing is changed in the parts."""

    def count(numbers: range) -> WalkTally:
        tally = WalkTally()
        for number in numbers:
            case = replace(CASE, number=number, trust=(3, 3, 1, 0)[number % 4])
            if number % 5 == 4:
                tally.skip(case, f"reason {number % 2}")
            else:
                tally.add(case, None if number % 3 else f"difference {number}")
        return tally

    parts = [count(range(1, 30)).as_json(), count(range(30, 80)).as_json(), WalkTally().as_json()]
    before = json.dumps(parts)
    assert merge_tallies(parts) == count(range(1, 80)).as_json()
    assert json.dumps(parts) == before
    assert merge_tallies([]) == WalkTally().as_json()
