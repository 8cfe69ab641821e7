"""Traces: every access is there once, the program runs as without, and what is counted adds up."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.trace_lane import KIND_SHIFT
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.run import Settings
from ptewalk.cosim.programs.trace import TracedMmu, replay_words
from ptewalk.cosim.programs.trace_files import EPOCH, LINEAR, read_words, touched, write_header
from ptewalk.cosim.programs.trace_runs import TracedRun, row, trace_program
from ptewalk.cosim.runs.tracing import trace_library
from ptewalk.model.dirty_log import record_of
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access

Programs = Callable[[str], str]
Run = Callable[..., Any]
Command = Callable[..., tuple[int, str, str]]
PROFILE = PROFILES["linux-6.1"]


def traced(command: list[str], track: str = "native", save: io.BytesIO | None = None, **more: Any) -> TracedRun:
    settings = Settings(PROFILE, Track[track.upper()], seed=7, memory_bytes=64 << 20, **more)
    return trace_program(settings, command, trace_library(), save=save)


# Files.


def own(tmp_path: Path, *words: int) -> Path:
    """A file of the project's own format."""
    path = tmp_path / "own.trace"
    with path.open("wb") as handle:
        write_header(handle)
        handle.write(np.array(words, "<u8").tobytes())
    return path


def word(kind: int, linear: int) -> int:
    return kind << KIND_SHIFT | linear


def test_lackeys_lines(tmp_path: Path) -> None:
    path = tmp_path / "lackey"
    path.write_text("==7== Lackey\nI  0401ab70,3\n S 1fff000768,8\n\n L 04000ffc,8\n M 04002010,4\n==7== \n")
    found = [(one >> KIND_SHIFT, one & LINEAR) for words in read_words(path) for one in words.tolist()]
    assert found == [
        (Access.FETCH, 0x401AB70),
        (Access.WRITE, 0x1FFF000768),
        (Access.READ, 0x4000FFC),
        (Access.READ, 0x4001000),  # it crosses a page
        (Access.RMW, 0x4002010),
    ]
    pages, count = touched(path)
    assert (pages.tolist(), count) == ([0x4000, 0x4001, 0x4002, 0x401A, 0x1FFF000], 5)


def test_own_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    words = [word(Access.READ, 0x1000), word(EPOCH, 0), word(Access.WRITE | 8, 0x7FFF_FFFF_EFF8)]
    path = own(tmp_path, *words)
    assert [one for part in read_words(path) for one in part.tolist()] == words
    assert touched(path)[1] == 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no access in it; name a trace file"),
        (b"==3== nothing\n", "no access in it; name a trace file"),
        (b" S 1000,8\n X 1000,8\n", "line 2 is no access: give lines of valgrind's lackey"),
        (b" S 1000\n", "line 1 is no access"),
        (b" S ffffffffff600000,8\n", "line 1: 0xffffffffff600000 is no address of a program"),
        (b"ptewalk trace 2\n", "another version of a trace; this ptewalk reads version 1"),
        (b"ptewalk trace 1\n\1\2\3", "it is cut off in the midst of a word"),
        (b"ptewalk trace 1\n" + bytes(8) + b"\0" * 7 + b"\x50", "byte 24: 0x5000000000000000 is no access of a trace"),
        (b"ptewalk trace 1\n" + b"\0" * 6 + b"\x80\0", "byte 16: 0x0080000000000000 is no access of a trace"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(ToolError) as error:
        touched(path)
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value) and "\n" not in str(error.value)


# What the gateware makes of them.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("track", "faults", "marks", "mends"), [("off", 3 + 2, 0, 0), ("fault", 3, 2, 2), ("native", 3, 2, 0)]
)
def test_a_file_counted_by_hand(tmp_path: Path, track: str, faults: int, marks: int, mends: int) -> None:
    """Three pages, stored to once; then two of them again after each clear, three times in a row."""
    first = [word(Access.WRITE, page * PAGE_BYTES) for page in (16, 17, 40)]
    again = [word(Access.WRITE, page * PAGE_BYTES + 8) for page in (16, 16, 16, 40)]
    path = own(tmp_path, *first, word(EPOCH, 0), *again)
    mmu = replay_words(read_words(path), touched(path)[0], trace_library(), PROFILE, Track[track.upper()], latency=4)
    counts = mmu.counts()
    mmu.lane.close()
    assert (counts.faults, counts.marks, counts.mends) == (faults, marks, mends)
    assert counts.answered == len(first) + len(again)
    told = row(track, counts, 7, 1000)
    assert told["trap_cycles"] == 1000 * faults and told["total"] == counts.cycles + 1000 * faults


@pytest.mark.slow
@pytest.mark.parametrize("design", ["mmu", "mmu-small"])
def test_the_dirty_log_of_a_file_is_what_was_stored_to(tmp_path: Path, design: str) -> None:
    """Each page has one record in each epoch in which it is stored to, but the first: there its faults mark it."""
    rng = random.Random(design)
    epochs = [[rng.randrange(64) for _ in range(rng.randrange(1, 200))] for _ in range(9)]
    epochs[0] = list(range(64))
    words = []
    for pages in epochs:
        words += [word(rng.choice((Access.WRITE, Access.RMW)), page * PAGE_BYTES + 8 * page) for page in pages]
        words += [word(Access.READ, rng.randrange(64) * PAGE_BYTES) for _ in range(20)] + [word(EPOCH, 0)]
    path = own(tmp_path, *words)
    mmu = replay_words(
        read_words(path), touched(path)[0], trace_library(design, log=True), PROFILE, Track.NATIVE, latency=3
    )
    records = [record_of(one) for one in mmu.lane.records()]
    counts = mmu.counts()
    mmu.lane.close()
    assert counts.records == len(records) == counts.marks > 200
    assert row("native", counts, 0, 0)["records"] == counts.marks
    for number, pages in enumerate(epochs[1:], start=1):
        mine, records = records[: len(set(pages))], records[len(set(pages)) :]
        assert [one.page for one in mine] == list(dict.fromkeys(pages))  # in the order of their first stores
        assert {(one.epoch, one.level, one.pcid, one.software) for one in mine} == {(number % 2, 1, 0, False)}
    assert not records


@pytest.mark.slow
def test_a_log_of_a_program_and_one_that_is_wrong(program: Programs, ptewalk: Command) -> None:
    command = ("--log", "--json", "--track", "native", "--epoch", "marker", "--", program("dirty"))
    code, printed, _ = ptewalk("trace", *command)
    (told,) = json.loads(printed)["rows"]
    assert code == 0 and told["records"] == told["marks"] > 4
    code, _, errors = ptewalk("trace", "--mutant", "record-before-the-swap", *command)
    assert code != 0 and "a record in the dirty log without a mark" in errors


def test_a_log_is_of_one_walker(ptewalk: Command) -> None:
    code, _, errors = ptewalk("trace", "--log", "--design", "mmu-8walkers", "--", "/bin/true")
    text = "ptewalk: a dirty log is of an MMU with one walker, not of mmu-8walkers: give another --design"
    assert (code, errors.strip()) == (2, text)


@pytest.mark.slow
def test_every_access_is_there_once(program: Programs) -> None:
    """Reads of the zero page, too, which lies at eight linear addresses: each has its own."""
    save = io.BytesIO()
    ended = traced([program("touch")], save=save)
    at = int(ended.output.split()[0], 16)
    words = np.frombuffer(save.getvalue()[len(b"ptewalk trace 1\n") :], "<u8")
    kinds, pages = words >> np.uint64(KIND_SHIFT), (words & np.uint64(LINEAR)) >> np.uint64(PAGE_SHIFT)
    found = {
        access: [int(((kinds == access) & (pages == (at >> PAGE_SHIFT) + page)).sum()) for page in range(8)]
        for access in (Access.READ, Access.WRITE)
    }
    assert found == {Access.READ: [3] * 8, Access.WRITE: [page + 1 for page in range(8)]}
    assert len(words) == ended.accesses
    fetches = int((kinds == Access.FETCH).sum())
    assert 0 <= fetches - ended.instructions < 0.02 * fetches  # an instruction may lie on two pages


@pytest.mark.slow
@pytest.mark.parametrize("track", ["off", "fault", "native"])
def test_an_access_on_two_pages_is_two(program: Programs, track: str) -> None:
    """Whether the second page is filled, or faults, after the access was recorded; none is missing later."""
    save = io.BytesIO()
    ended = traced([program("split")], track, epoch=Every("marker"), save=save)
    assert ended.status == 0 and ended.epochs is not None and ended.epochs["lost"] == 0
    at = int(ended.output.split()[0], 16) >> PAGE_SHIFT
    words = np.frombuffer(save.getvalue()[len(b"ptewalk trace 1\n") :], "<u8")
    epochs = words >> np.uint64(KIND_SHIFT) == EPOCH
    kinds, linear = words >> np.uint64(KIND_SHIFT), words & np.uint64(LINEAR)
    for access, before in ((Access.READ, [0] * 8), (Access.WRITE, [1] * 4 + [0] * 4)):
        pages = (linear >> np.uint64(PAGE_SHIFT))[kinds == access]
        late = np.cumsum(epochs)[kinds == access] > 0
        assert [int(((pages == at + page) & ~late).sum()) for page in range(8)] == before
        assert [int(((pages == at + page) & late).sum()) for page in range(8)] == [1] * 8
    assert ended.counts.answered == ended.accesses == len(words) - int(epochs.sum())


@pytest.mark.slow
def test_a_traced_program_runs_as_any_other(program: Programs, run: Run) -> None:
    """The same output, pages and faults as with the golden model, in each way of tracking; and it adds up."""
    results = {}
    for track in ("off", "fault", "native"):
        ended = traced([program("dirty")], track, epoch=Every("marker"))
        model = run([program("dirty")], track=track, epoch=Every("marker"))
        assert ended.output == model.output and ended.epochs == model.run.epochs.as_json()
        counts = results[track] = ended.counts
        assert counts.faults == model.figures["faults"]
        assert counts.answered == ended.accesses == sum(counts.hits.values()) + counts.walks - counts.faults
        assert sum(counts.walks_of_reads.values()) == counts.walks
        assert counts.reads == sum(reads * walks for reads, walks in counts.walks_of_reads.items())
        assert ended.accesses < counts.cycles < 2 * ended.accesses
    off, fault, native = (results[track] for track in ("off", "fault", "native"))
    assert fault.faults == native.faults < off.faults
    assert (off.marks, off.mends, native.mends) == (0, 0, 0)
    assert fault.marks == fault.mends == native.marks == off.faults - native.faults > 0


@pytest.mark.slow
def test_a_tlb_that_is_not_told_what_to_forget_loses_stores(program: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TracedMmu, "invalidate", lambda self, linear: None)
    ended = traced([program("dirty")], epoch=Every("marker"))
    assert ended.epochs is not None and ended.epochs["lost"] > 0


@pytest.mark.slow
def test_the_command(tmp_path: Path, program: Programs, ptewalk: Command) -> None:
    saved, table = tmp_path / "saved", tmp_path / "table.csv"
    asked = ("trace", "--track", "native", "--latency", "4", "--trap-cycles", "1000", "--epoch", "marker", "--json")
    code, printed, errors = ptewalk(*asked, "--save", str(saved), "--csv", str(table), program("touch"))
    assert code == 0, errors
    told = json.loads(printed)
    assert told["design"] == "mmu" and told["latency"] == 4 and told["cycles_of_a_trap"] == 1000
    (first,) = told["rows"]
    assert first["status"] == 0 and first["trap_cycles"] == 1000 * first["faults"] > 0
    assert table.read_text().splitlines()[0].startswith("track,accesses,hits_4k") and table.read_text().count("\n") == 2
    code, printed, errors = ptewalk("trace", "--file", str(saved), "--epoch", "accesses:5000", "--json")
    assert code == 0, errors
    rows = json.loads(printed)["rows"]
    assert [one["track"] for one in rows] == ["off", "fault", "native"]
    assert {one["accesses"] for one in rows} == {first["accesses"]} and rows[0]["faults"] > rows[2]["faults"]
    code, printed, errors = ptewalk("trace", "--track", "off", "--accesses", "5000", "--json", program("touch"))
    assert code == 0 and 5000 <= json.loads(printed)["rows"][0]["accesses"] < 15_000
    for words, says in (
        ((), "give either a PROGRAM with its arguments, or a trace by --file"),
        (("--file", str(saved), program("touch")), "give either a PROGRAM"),
        (("--save", str(saved), program("touch")), "give one --track, and no --file"),
        (("--file", str(saved), "--epoch", "marker"), "no epoch 'marker' of a file: give accesses:N"),
        (("--file", str(saved), "--accesses", "7"), "--accesses is for a program"),
    ):
        code, _, errors = ptewalk("trace", *words)
        assert code == 2 and says in errors and errors.count("\n") == 1
