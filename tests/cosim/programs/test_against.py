"""The same program on a real kernel: what differs is found and named, and nothing differs."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.single import SingleWalker
from ptewalk.cosim.oracles.linux.guest import missing_tools
from ptewalk.cosim.oracles.linux.program_guest import ONE_PROCESS, Area, Call, ProgramState, Told
from ptewalk.cosim.programs.against import Against, Answered, Watcher, ask_linux, compare, tree_files
from ptewalk.cosim.programs.against_runs import EPOCHS
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.tree import Tree
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.cosim.programs.workloads import WORKLOADS
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES

PRESENT, SOFT_DIRTY = 1 << 63, 1 << 55
BRK, MMAP, EXIT_GROUP = 12, 9, 231
P, RW, A, D, MARK = 1, 2, 1 << 5, 1 << 6, 1 << 11


def state(**changes: Any) -> ProgramState:
    """Two pages of one area, the second soft-dirty."""
    usual: dict[str, Any] = dict(
        areas=[Area(0x5000, 0x9000, "rw-p", ("rd", "wr", "mr", "sd"))],
        pages=np.array([5, 7]),
        words=np.array([PRESENT | 3, PRESENT | SOFT_DIRTY | 4], np.uint64),
        calls=[Call(BRK, 0x1000)],
        leaf_pages=np.array([5, 7]),
        leaf_levels=np.array([1, 1]),
        leaves=np.array([3 << 12 | P, 4 << 12 | P | RW | A | D | MARK], np.uint64),
    )
    return ProgramState(**usual | changes)


def differences(ours: ProgramState, theirs: ProgramState) -> list[str]:
    """What a comparison says."""
    found = Against()
    found.compare(ours, theirs)
    return found.as_json()["differences"]


def test_frames_and_accessed_do_not_count() -> None:
    other = state(
        words=np.array([PRESENT | 30, PRESENT | SOFT_DIRTY | 40], np.uint64),
        leaves=np.array([30 << 12 | P | A, 40 << 12 | P | RW | D | MARK], np.uint64),
    )
    assert differences(state(), other) == []
    found = Against()
    found.compare(state(), other)
    assert (found.epochs, found.areas, found.pages, found.entries, found.calls) == (1, 1, 2, 2, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"calls": [Call(MMAP, 0x1000)]}, "call, number 1 of the epoch: brk = 0x1000 here, mmap = 0x1000 there"),
        ({"calls": []}, "call, number 1 of the epoch: brk = 0x1000 here, nothing there"),
        (
            {"areas": [Area(0x5000, 0x9000, "rw-p", ("rd", "wr"))]},
            "area, page 0x5000, area 0x5000-0x9000: rw-p rd wr sd here, rw-p rd wr there",
        ),
        (
            {"words": np.array([PRESENT | SOFT_DIRTY, PRESENT | SOFT_DIRTY], np.uint64)},
            "page, page 0x5000, area 0x5000-0x9000 rw-p: present here, present soft-dirty there",
        ),
        (
            {"pages": np.array([5, 8])},
            "page, page 0x7000, area 0x5000-0x9000 rw-p: present soft-dirty here, nothing there",
        ),
        (
            {"leaves": np.array([3 << 12 | P | D, 4 << 12 | P | RW | D | MARK], np.uint64)},
            "entry, page 0x5000, area 0x5000-0x9000 rw-p: 0x1001 here, 0x1041 there",
        ),
        ({"leaf_levels": np.array([1, 2])}, "entry, page 0x7000, area 0x5000-0x9000 rw-p: 0x1843 here, 0x6843 there"),
    ],
)
def test_what_differs_is_named(changes: dict[str, Any], said: str) -> None:
    assert f"epoch 0: {said}" in differences(state(), state(**changes))


def test_ends_are_compared() -> None:
    watcher = object.__new__(Watcher)
    watcher.states, watcher.calls, watcher.status = [state(), state()], [Call(BRK, 1), Call(EXIT_GROUP, 0)], 0
    there = Answered("6.1", [state(), state()], [Call(BRK, 1)], 0, (b"out", b""))
    assert compare(watcher, (b"out", b""), there, entries=True).as_json()["differences"] == []
    found = compare(watcher, (b"oup", b""), replace(there, calls=[], status=9), entries=True).as_json()
    assert found["differ"] == {"call": 1, "end": 1, "output": 1}
    short = compare(watcher, (b"out", b""), replace(there, states=[state()]), entries=True).as_json()
    assert short["differences"] == ["epoch 1: end, the program: 1 epochs here, 0 epochs there"]


def test_what_is_told_has_the_layout_of_the_tracer() -> None:
    packed = Told(3, 0x9000, (1 << 64) - 2, 0x7000, b"abc").pack()
    assert struct.unpack("<5q", packed[:40]) == (3, 0x9000, -2, 0x7000, 3) and packed[40:] == b"abc"


def test_the_guests_tree_has_what_the_program_looked_at(tmp_path: Path) -> None:
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    (root / "a/b").mkdir(parents=True)
    scratch.mkdir()
    (root / "a/file").write_text("seen")
    (root / "a/other").write_text("only its name")
    (root / "a/b/unseen").write_text("nothing of it")
    (root / "a/link").symlink_to("file")
    os.utime(root / "a/file", (5, 5))
    tree = Tree(root, scratch, 1 << 20)
    assert tree.resolve(b"/", b"/a/link") == b"/a/file"
    assert tree.lstat(b"/a/none") is None
    tree.names(b"/a")
    found = {one.path: one for one in tree_files(tree)}
    assert list(found) == ["/a", "/a/other", "/a/link", "/a/file", "/a/b"]  # listed by the guest the other way round
    assert (found["/a/file"].data, found["/a/file"].changed, found["/a/other"].data) == (b"seen", 5, b"")
    assert stat.S_ISLNK(found["/a/link"].mode) and found["/a/link"].data == b"file"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "linux"], "--against needs --epoch syscalls:N or marker"),
        (["--against", "linux", "--epoch", "instructions:100"], "--against needs --epoch syscalls:N or marker"),
        (["--kernel", "6.1"], "--kernel and --deb are for --against linux"),
        (["--against", "linux", "--epoch", "marker", "--profile", "linux-seed"], "Debian has no kernel"),
    ],
)
def test_bad_use(ptewalk: Callable[..., tuple[int, str, str]], arguments: list[str], said: str) -> None:
    code, _, errors = ptewalk("run", *arguments, "--", "/bin/true")
    assert code == 2 and said in errors and len(errors.splitlines()) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kills", "3"], "--against and --kills are two things: leave one out"),
        (["--only", "pipeline"], "--against takes workloads of one process: sort, awk"),
    ],
)
def test_bad_use_of_workloads(ptewalk: Callable[..., tuple[int, str, str]], arguments: list[str], said: str) -> None:
    code, _, errors = ptewalk("workloads", "--against", "linux", *arguments)
    assert code == 2 and said in errors and len(errors.splitlines()) == 1


PIPE = "read line < /etc/services; echo $line | cat"


@pytest.mark.parametrize("words", [["sh", "-c", PIPE], ["env", "busybox", "true"]])
def test_a_second_process_or_program_is_refused(have: Callable[[str], str], words: list[str]) -> None:
    """Before the real kernel is asked; also between two epochs."""
    with pytest.raises(ToolError) as error:
        watched([have("busybox"), *words], "linux-6.1", Track.OFF, every=10000)
    assert str(error.value) == ONE_PROCESS and "\n" not in ONE_PROCESS


@pytest.mark.slow
def test_the_command_refuses_a_pipeline(
    have: Callable[[str], str], ptewalk: Callable[..., tuple[int, str, str]]
) -> None:
    if missing_tools():
        pytest.skip("; ".join(missing_tools()))
    asked = ("run", "--backend", "model", "--track", "off", "--against", "linux", "--epoch", "syscalls:5")
    code, told, errors = ptewalk(*asked, "--", have("busybox"), "sh", "-c", PIPE)
    assert (code, told, errors) == (2, "", f"ptewalk: {ONE_PROCESS}\n")


@pytest.mark.slow
def test_the_tracer_refuses_a_pipeline(have: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model's side lets pass."""
    if missing_tools():
        pytest.skip("; ".join(missing_tools()))
    monkeypatch.setattr(Watcher, "_refuse", lambda self: None)
    with pytest.raises(ToolError) as error:
        watched([have("busybox"), "sh", "-c", "true | true"], "linux-6.1", Track.OFF, every=10000, ask=True)
    assert str(error.value) == ONE_PROCESS


def test_every_workload_of_one_process_can_be_compared() -> None:
    assert set(WORKLOADS) - set(EPOCHS) == {"pipeline"} and set(EPOCHS) <= set(WORKLOADS)


# A live kernel.


@dataclass
class Live:
    """A run, and what a real kernel did."""

    watcher: Watcher
    outputs: tuple[bytes, bytes]
    answered: Answered


def watched(
    command: list[str], profile: str, track: Track, *, gateware: bool = False, ask: bool = False, every: int = 4
) -> Any:
    """Run a program as `ptewalk run --against linux` does; with `ask`, on a real kernel too."""
    settings = Settings(PROFILES[profile], track, seed=7, epoch=Every("syscalls", every))
    out = io.BytesIO()
    library = WalkerLibrary.make() if gateware else None
    walker = ModelWalker if library is None else lambda memory: SingleWalker(library.lane, memory)
    with ProgramRun(settings, walker, stdin=io.BytesIO(), stdout=out, stderr=io.BytesIO()) as running:
        watcher = Watcher(running)
        running.start(command[0], command[1:])
        watcher.status = running.run()
        outputs = out.getvalue(), b""
        return Live(watcher, outputs, ask_linux(running, watcher, command, "6.1")) if ask else (watcher, outputs)


@pytest.fixture(scope="module")
def command(have: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """gzip of a file."""
    text = tmp_path_factory.mktemp("against") / "text"
    text.write_bytes(b"".join(b"%d\n" % (number * number) for number in range(4000)))
    return [have("gzip"), "-n", "-c", str(text)]


@pytest.fixture(scope="module")
def live(command: list[str]) -> Live:
    if missing_tools():
        pytest.skip("; ".join(missing_tools()))
    found = watched(command, "linux-6.1", Track.OFF, ask=True)
    assert isinstance(found, Live)
    return found


@pytest.mark.slow
def test_a_real_kernel_does_the_same(live: Live) -> None:
    found = compare(live.watcher, live.outputs, live.answered, entries=True).as_json()
    assert found["differences"] == [] and found["differ"] == {}
    assert found["epochs"] >= 10 and found["pages"] > 1500 and found["entries"] > 1500 and found["calls"] > 40
    assert len(live.answered.outputs[0]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
def test_the_gateware_marks_what_a_real_kernel_does(live: Live, command: list[str], track: Track) -> None:
    watcher, outputs = watched(command, "linux-6.1", track, gateware=True)
    assert compare(watcher, outputs, live.answered, entries=False).as_json()["differences"] == []
    # The entries themselves are writable where the kernel's own way leaves them read-only.
    entries = compare(watcher, outputs, live.answered, entries=True).differ
    assert set(entries) == {"entry"} and entries["entry"] > 10


@pytest.mark.slow
def test_another_kernel_is_noticed(live: Live, command: list[str]) -> None:
    watcher, outputs = watched(command, "linux-3.11", Track.OFF)
    differ = compare(watcher, outputs, live.answered, entries=True).differ
    assert differ["page"] and differ["area"]
