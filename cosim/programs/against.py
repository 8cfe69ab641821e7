"""The same program on a real kernel, compared epoch by epoch: areas, present pages, soft-dirty bits, raw entries."""

from __future__ import annotations

import io
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.program_guest import (
    ONE_PROCESS,
    Area,
    Call,
    GuestFile,
    GuestProgram,
    ProgramGuest,
    ProgramState,
    Told,
)
from ptewalk.cosim.programs.call_numbers import NAMES, NUMBERS
from ptewalk.cosim.programs.run import ProgramRun
from ptewalk.cosim.programs.tree import KERNELS, Tree
from ptewalk.model.linux import LATER_FLAGS, RECORDED_FLAGS, PagemapBit
from ptewalk.model.mm import stack
from ptewalk.model.proc import pagemap, smaps
from ptewalk.model.pte import PROTNONE, A, P
from ptewalk.model.x86 import LEVEL_SHIFT, PAGE_SHIFT

__all__ = ["Against", "Difference", "Kept", "Answered", "Watcher", "ask_linux", "compare", "tree_files"]

_FLAGS: Final = RECORDED_FLAGS | LATER_FLAGS
_STATUS: Final = sum(1 << bit for bit in (PagemapBit.PRESENT, PagemapBit.SWAP, PagemapBit.FILE, PagemapBit.SOFT_DIRTY))
"""Bits of a page map's entry that are compared."""
_LAST_FRAME_BIT: Final = 51
_SWAP_OFFSET: Final = (1 << 59) - (1 << 9)
_MOST_SHOWN: Final = 1000
_READS: Final = frozenset(NUMBERS[name] for name in ("read", "pread64", "readv"))
"""What they tell lies in files that both sides have."""
_TOLD: Final = frozenset(NUMBERS[name] for name in ("time", "times"))
"""Their result is a time."""
_RANDOM_BYTES: Final = 16
"""At the start only these (AT_RANDOM) are not what the guest has anyway."""
_MOST_TOLD: Final = 1 << 20
_ENDS: Final = frozenset(NUMBERS[name] for name in ("exit", "exit_group"))


class Difference(NamedTuple):
    """Where the two sides differ.

    Attributes
    ----------
    epoch : int
        0: when the program starts.
    what : str
        "area", "page", "entry"; "call", "end", "output".
    page : int
        First page of an area; 0 where there is none.
    area : str
        Or what it is that differs.
    ours, theirs : str
        What each side has; "" for nothing.
    """

    epoch: int
    what: str
    page: int
    area: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        place = f"page {self.page << PAGE_SHIFT:#x}, area {self.area}" if self.page else self.area
        return (
            f"epoch {self.epoch}: {self.what}, {place}: {self.ours or 'nothing'} here, {self.theirs or 'nothing'} there"
        )


class Kept(io.BytesIO):
    """A stream that keeps what is written to another."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self._sink = sink

    def write(self, data: Any) -> int:
        """As `io.BytesIO.write`."""
        self._sink.write(data)
        return super().write(data)

    def flush(self) -> None:
        """As `io.BytesIO.flush`."""
        self._sink.flush()


class Watcher:
    """Keeps what a run's program had in memory where its epochs ended.

    Parameters
    ----------
    running : ProgramRun
        With epochs, and not started yet.
    stdin : bytes
        Its standard input.

    Raises
    ------
    ToolError
        While it runs: it made a process, or ran another program.

    Attributes
    ----------
    states : list of ProgramState
        When the program starts, and then at the end of each epoch.
    calls : list of Call
        Made since the last epoch.
    told : list of Told
        What system calls told, where the guest's would tell something else: times, inode numbers, random bytes.
    status : int
        The program's, to be put here when it has ended.
    """

    def __init__(self, running: ProgramRun, stdin: bytes = b"") -> None:
        self._running, self.stdin = running, stdin
        self.folder = running.system.current.folder
        self.status = 0
        self.states: list[ProgramState] = []
        self.calls: list[Call] = []
        self.told: list[Told] = []
        self._writes: list[tuple[int, bytes]] = []
        self._departures = 0
        self._before = running.system.before_call
        running.watch = self._watch
        running.system.before_call = self._begin
        running.system.after_call = self._end
        running.memory.wrote = lambda linear, data: self._writes.append((linear, data))

    def _refuse(self) -> None:
        system = self._running.system
        if system.last_pid > 1 or system.departures > self._departures:
            raise ToolError(ONE_PROCESS)

    def _begin(self, number: int) -> None:
        self._refuse()
        self._writes.clear()
        self._before(number)

    def _end(self, number: int, result: int) -> None:
        self.calls.append(Call(number, result))
        made, stack = self._running.system.calls.total(), self._running.cpu["rsp"]
        if number in _TOLD:
            self.told.append(Told(made, stack, result))
        if number not in _READS:
            self.told += [
                Told(made, stack, result, linear + at, data[at : at + _MOST_TOLD])
                for linear, data in self._writes
                for at in range(0, len(data), _MOST_TOLD)
            ]

    def _watch(self) -> None:
        if not self.states:
            self._departures = self._running.system.departures
            registers = self._running.system.current.registers
            assert registers is not None
            told = [(linear, data) for linear, data in self._writes if len(data) == _RANDOM_BYTES]
            self.told += [Told(0, registers["rsp"], 0, linear, data) for linear, data in told]
        calls, self.calls = self.calls, []
        self.states.append(state_of_process(self._running, calls))


def state_of_process(running: ProgramRun, calls: list[Call]) -> ProgramState:
    """What the model's kernel tells of the process that runs."""
    mm = running.system.current.process.mm
    areas = []
    pages, words, levels, first, leaves = ([np.zeros(0, np.int64)] for _ in range(5))
    for vma in mm.areas:
        start = stack.shown_start(mm, vma)
        areas.append(
            Area(start << PAGE_SHIFT, vma.end << PAGE_SHIFT, smaps.permissions(vma), tuple(smaps.flag_names(vma)))
        )
        found, mapped = pagemap.read_area(mm, vma)
        there = (found & (pagemap.PRESENT | pagemap.SWAP)).nonzero()[0]
        pages.append(there + vma.start)
        words.append(found[there].view(np.int64))
        for piece, used, content in mapped:
            if piece.leaf:
                first.append(np.array([piece.head]))
                leaves.append(np.array([piece.leaf], np.uint64).view(np.int64))
            else:
                first.append(used + piece.first)
                leaves.append(content[used].view(np.int64))
            levels.append(np.full(len(first[-1]), piece.level))
    joined = [np.concatenate(one) for one in (pages, words, first, levels, leaves)]
    return ProgramState(
        areas, joined[0], joined[1].view(np.uint64), calls, joined[2], joined[3], joined[4].view(np.uint64)
    )


def tree_files(tree: Tree, extra: Iterable[bytes] = ()) -> list[GuestFile]:
    """The files of the root that a program looked at, for the guest; names that it only read are empty files."""
    whole = set(tree.seen) | set(extra)
    names = {folder.rstrip(b"/") + b"/" + name for folder in tree.listed for name in tree.names(folder)}
    every = {path for path in whole | names if path != b"/" and b"/" + path.split(b"/")[1] not in KERNELS}
    for path in list(every):
        while (path := path.rsplit(b"/", 1)[0]) and path not in every:
            every.add(path)
            whole.add(path)
    # A folder of the guest's lists what was made last first, and the model's its names in order.
    found = []
    for path in sorted(every, key=_last_first):
        host = tree.root.rstrip(b"/") + path
        try:
            status = os.lstat(host)
            data = b""
            if stat.S_ISLNK(status.st_mode):
                data = os.readlink(host)
            elif stat.S_ISREG(status.st_mode) and path in whole:
                with open(host, "rb") as file:
                    data = file.read()
        except OSError:
            continue
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFDIR, stat.S_IFLNK):  # a device or a socket is a name and no more
            kind = stat.S_IFREG
        rights = status.st_mode & 0o777 | (0o777 if kind == stat.S_IFDIR else 0o644)
        found.append(GuestFile(os.fsdecode(path), kind | rights, data, int(status.st_mtime)))
    return found


def _last_first(path: bytes) -> tuple[bytes, ...]:
    """Sorts paths the other way round, but folders before what is in them."""
    return tuple(bytes(255 - byte for byte in part) + b"\xff" for part in path.split(b"/"))


@dataclass
class Against:
    """What was compared.

    Attributes
    ----------
    kernel : str
        Its version.
    epochs, areas, pages, entries, calls : int
        Compared; the program's start counts as an epoch.
    differences : list of Difference
        The first thousand.
    differ : Counter
        Kind to how many differ.
    """

    kernel: str = ""
    epochs: int = 0
    areas: int = 0
    pages: int = 0
    entries: int = 0
    calls: int = 0
    differences: list[Difference] = field(default_factory=list)
    differ: Counter[str] = field(default_factory=Counter)

    def compare(self, ours: ProgramState, theirs: ProgramState, *, entries: bool = True) -> None:
        """One epoch of both sides; `entries`: raw entries too."""
        number = self.epochs
        self.epochs += 1
        self.areas += len(theirs.areas)
        self.pages += len(theirs.pages)
        self.entries += len(theirs.leaves) if entries else 0
        self.calls += len(theirs.calls)
        for one in (
            *_calls(number, ours.calls, theirs.calls),
            *_areas(number, ours, theirs),
            *_pages(number, ours, theirs),
            *(_entries(number, ours, theirs) if entries else ()),
        ):
            self.note(one)

    def note(self, one: Difference) -> None:
        """A difference."""
        self.differ[one.what] += 1
        if len(self.differences) < _MOST_SHOWN:
            self.differences.append(one)

    def finish(self, ours: Sequence[Call], theirs: Sequence[Call]) -> None:
        """System calls after the last epoch."""
        if ours and ours[-1].number in _ENDS:  # a guest that has ended tells of no such call
            ours = ours[:-1]
        self.calls += len(ours)
        for one in _calls(self.epochs, ours, theirs):
            self.note(one)

    def compare_output(self, ours: tuple[bytes, bytes], theirs: tuple[bytes, bytes]) -> None:
        """What both wrote to standard output and error."""
        for name, here, there in zip(("standard output", "standard error"), ours, theirs, strict=True):
            if here != there:
                same = len(os.path.commonprefix([here, there]))
                texts = [f"{len(text)} bytes, from {same} on {text[same : same + 40]!r}" for text in (here, there)]
                self.note(Difference(self.epochs, "output", 0, name, *texts))

    def as_json(self) -> dict[str, Any]:
        """What was compared, and what differs."""
        names = ("kernel", "epochs", "areas", "pages", "entries", "calls")
        return {
            **{name: getattr(self, name) for name in names},
            "differ": dict(self.differ),
            "differences": [str(one) for one in self.differences],
        }


def _calls(epoch: int, ours: Sequence[Call], theirs: Sequence[Call]) -> Iterator[Difference]:
    for place in range(max(len(ours), len(theirs))):
        here = _call(ours[place]) if place < len(ours) else ""
        there = _call(theirs[place]) if place < len(theirs) else ""
        if here != there:
            yield Difference(epoch, "call", 0, f"number {place + 1} of the epoch", here, there)


def _call(call: Call) -> str:
    return f"{NAMES.get(call.number, call.number)} = {call.result:#x}"


def _text(area: Area) -> str:
    return f"{area.rights} {' '.join(flag for flag in area.flags if flag in _FLAGS)}"


def _areas(epoch: int, ours: ProgramState, theirs: ProgramState) -> Iterator[Difference]:
    here = {(area.start, area.end): _text(area) for area in ours.areas}
    there = {(area.start, area.end): _text(area) for area in theirs.areas}
    for place in sorted(here.keys() | there.keys()):
        if here.get(place) != there.get(place):
            name = f"{place[0]:#x}-{place[1]:#x}"
            yield Difference(epoch, "area", place[0] >> PAGE_SHIFT, name, here.get(place, ""), there.get(place, ""))


def _area_of(state: ProgramState, page: int) -> str:
    address = page << PAGE_SHIFT
    return next(
        (f"{one.start:#x}-{one.end:#x} {one.rights}" for one in state.areas if one.start <= address < one.end), "none"
    )


def _differing(
    ours: tuple[NDArray[np.int64], NDArray[np.uint64]], theirs: tuple[NDArray[np.int64], NDArray[np.uint64]]
) -> Iterator[tuple[int, int | None, int | None]]:
    """Pages whose words differ, with both; None: it is not there."""
    if np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1]):
        return
    here = dict(zip(ours[0].tolist(), ours[1].tolist(), strict=True))
    there = dict(zip(theirs[0].tolist(), theirs[1].tolist(), strict=True))
    for page in sorted(here.keys() | there.keys()):
        if here.get(page) != there.get(page):
            yield page, here.get(page), there.get(page)


def _letters(word: int | None) -> str:
    if word is None:
        return ""
    names = {
        PagemapBit.PRESENT: "present",
        PagemapBit.SWAP: "swapped",
        PagemapBit.FILE: "file",
        PagemapBit.SOFT_DIRTY: "soft-dirty",
    }
    return " ".join(name for bit, name in names.items() if word >> bit & 1)


def _pages(epoch: int, ours: ProgramState, theirs: ProgramState) -> Iterator[Difference]:
    status = np.uint64(_STATUS)
    for page, here, there in _differing((ours.pages, ours.words & status), (theirs.pages, theirs.words & status)):
        yield Difference(epoch, "page", page, _area_of(theirs, page), _letters(here), _letters(there))


def _flags(state: ProgramState) -> NDArray[np.uint64]:
    """Raw entries without frame, swap offset and A; the level in bits 12 and 13.

    QEMU's TLB sets A at other times than Unicorn's.
    """
    present = (state.leaves & np.uint64(P | PROTNONE)) != 0
    out = state.leaves & np.where(present, ~np.uint64(A), ~np.uint64(_SWAP_OFFSET))
    for level in (1, 2, 3):
        frame = np.uint64((1 << _LAST_FRAME_BIT + 1) - (1 << LEVEL_SHIFT[level]))
        chosen = present & (state.leaf_levels == level)
        out[chosen] = out[chosen] & ~frame | np.uint64(level << 12)
    return out


def _entries(epoch: int, ours: ProgramState, theirs: ProgramState) -> Iterator[Difference]:
    if not len(theirs.leaves):
        return
    order = np.argsort(ours.leaf_pages, kind="stable")
    here = ours.leaf_pages[order], _flags(ours)[order]
    for page, mine, real in _differing(here, (theirs.leaf_pages, _flags(theirs))):
        texts = ["" if one is None else f"{one:#x}" for one in (mine, real)]
        yield Difference(epoch, "entry", page, _area_of(theirs, page), *texts)


@dataclass(frozen=True)
class Answered:
    """What a real kernel's program did.

    Attributes
    ----------
    kernel : str
        Its version.
    states : list of ProgramState
        When it started, and at the end of each epoch.
    calls : list of Call
        After the last epoch, but for the one that ended it.
    status : int
    outputs : tuple of bytes
        Standard output and error.
    """

    kernel: str
    states: list[ProgramState]
    calls: list[Call]
    status: int
    outputs: tuple[bytes, bytes]


def ask_linux(running: ProgramRun, watcher: Watcher, words: Sequence[str], kernel: str | None) -> Answered:
    """Have a real kernel run what a run that has ended did.

    Parameters
    ----------
    running : ProgramRun
    watcher : Watcher
        Which watched it.
    words : sequence of str
        The program and its arguments.
    kernel : str or None
        As `find_kernel` takes it.

    Raises
    ------
    ToolError
        The guest cannot be had, is lost, or cannot run the program.
    """
    settings = running.settings
    assert settings.epoch is not None
    name, *arguments = map(os.fsencode, words)
    path = running.system.find(name, settings.environment)
    program = GuestProgram(
        path,
        [name, *arguments],
        settings.environment,
        watcher.folder,
        tree_files(running.system.tree, [path, watcher.folder]),
        stdin=watcher.stdin,
        told=watcher.told,
        count=settings.epoch.count,
    )
    with ProgramGuest(kernel, program) as guest:
        states = []
        for state in guest.epochs():
            states.append(state)
            if len(states) > len(watcher.states):  # it need not end
                break
        return Answered(guest.kernel.version, states, guest.calls(), guest.status, guest.output())


def compare(watcher: Watcher, outputs: tuple[bytes, bytes], there: Answered, *, entries: bool) -> Against:
    """What a run that has ended and a real kernel have in common.

    Parameters
    ----------
    outputs : tuple of bytes
        What the run's program wrote to standard output and error.
    entries : bool
        Raw entries too: the MMU does to them what that kernel's does.
    """
    found = Against(there.kernel)
    for ours, theirs in zip(watcher.states, there.states, strict=False):
        found.compare(ours, theirs, entries=entries)
    if len(watcher.states) != len(there.states):
        texts = [f"{len(states) - 1} epochs" for states in (watcher.states, there.states)]
        found.note(Difference(found.epochs, "end", 0, "the program", *texts))
    else:
        found.finish(watcher.calls, there.calls)
    if watcher.status != there.status:
        found.note(Difference(found.epochs, "end", 0, "status", str(watcher.status), str(there.status)))
    found.compare_output(outputs, there.outputs)
    return found
