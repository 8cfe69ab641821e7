"""Traces: every access of a run, or of a file, through an MMU that caches; counted, with the cycles that they take."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.caching import RuleOfCachingBroken
from ptewalk.cosim.bench.records import REQUEST, Records
from ptewalk.cosim.bench.trace_lane import (
    KIND_SHIFT,
    OUTSTANDING,
    SUPERVISOR,
    Answered,
    Recorder,
    TraceCounts,
    TraceLane,
)
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.trace_files import EPOCH, LINEAR, Words, pages_of, write_header
from ptewalk.model.access import state_of
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import FixedMemory
from ptewalk.model.mm import faults
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, State, Translated
from ptewalk.model.profile import Profile
from ptewalk.model.state.machine import CONTROL
from ptewalk.model.x86 import PAGE_SHIFT, Access, Control, Invalidation, Outcome

__all__ = ["CachingWalker", "EndOfTrace", "TracedMmu", "TracedWalker", "replay_words"]

_CHUNK: Final = 1 << 18
"""Accesses at a time."""
_FEW: Final = 1 << 12
"""The same of a run that is to end after so many."""
_HIGHEST: Final = 1 << KIND_SHIFT
_RETRIES: Final = 16


class EndOfTrace(Exception):
    """As many accesses as were asked for are done."""


class TracedMmu:
    """An MMU that caches, asked by the array.

    Parameters
    ----------
    library : Path
        Built of `bench.trace_lane.trace_files`.
    memory : FixedMemory
    latency, outstanding : int
        As `TraceLane`.

    Attributes
    ----------
    epochs : int
        That ended so far.
    """

    def __init__(self, library: Path, memory: FixedMemory, *, latency: int = 1, outstanding: int = OUTSTANDING) -> None:
        self.lane = TraceLane(library, memory, latency=latency, outstanding=outstanding)
        self.faults = 0
        self.epochs = 0
        self._state: State | None = None
        self._context: Records | None = None
        self._stale: dict[int | None, None] = {}
        self._last: Records = np.zeros(1, REQUEST)

    def invalidate(self, linear: int | None) -> None:
        """Before the next access: forget what is cached for a linear address, or everything."""
        self._stale[linear] = None

    def context(self, state: State) -> None:
        """Accesses are judged under another state from now on; what is cached goes, but for global pages."""
        record: Records = np.zeros(1, REQUEST)
        row = record[0]
        row["root"], row["control"], row["pkru"] = state.root >> PAGE_SHIFT, state.control, state.pkru
        row["pkrs"], row["track"], row["saved_dirty"] = state.pkrs, int(state.track), state.saved_dirty
        self._state, self._context = state, record

    def ask(self, state: State, accesses: NDArray[np.uint64], last: Request | None = None) -> Answered:
        """As `TraceLane.run`, under a state, and after what was to be forgotten."""
        if state is not self._state:
            self.context(state)
        if last is not None:
            row = self._last[0]
            row["linear"], row["access"], row["user"] = last.linear, int(last.access), last.user
            row["implicit"], row["ac"] = last.implicit, last.ac
        stale = [None] if None in self._stale else list(self._stale)
        told = [(Invalidation.ALL, 0) if linear is None else (Invalidation.INVLPG, linear) for linear in stale]
        answered = self.lane.run(
            accesses, last=None if last is None else self._last, context=self._context, invalidations=told
        )
        self._stale.clear()
        self._context = None
        self.faults += answered.stopped
        return answered

    def epoch(self) -> None:
        """An epoch ended: records of the dirty log, where there is one, have the other parity from now on."""
        self.epochs += 1
        self.lane.epoch(self.epochs)

    def counts(self) -> TraceCounts:
        """What was counted so far."""
        counts = self.lane.counts()
        counts.faults = self.faults
        return counts


def _result(answered: Answered) -> Result:
    if answered.outcome == Outcome.OK:
        bits = (bool(answered.pwt), bool(answered.pcd), bool(answered.pat))
        return Translated(answered.physical, answered.level, *bits)
    if answered.outcome == Outcome.PAGE_FAULT:
        return PageFault(answered.code)
    return GeneralProtection() if answered.outcome == Outcome.GENERAL_PROTECTION else BusFault()


class CachingWalker:
    """Who walks for a run whose MMU caches: a `Walker`. What Unicorn's TLB misses is asked, and may be cached here.

    Parameters
    ----------
    mmu : TracedMmu
    """

    def __init__(self, mmu: TracedMmu) -> None:
        self.mmu = mmu
        self._nothing: NDArray[np.uint64] = np.zeros(0, np.uint64)

    @property
    def counters(self) -> dict[str, int]:
        """What the gateware counted; `hits` are answers without a walk."""
        counts = self.mmu.counts()
        shown = {"cycles": counts.cycles, "hits": sum(counts.hits.values()), "marks": counts.marks}
        return shown | {"mends": counts.mends, "delivered_faults": counts.faults}

    def walk(self, state: State, request: Request) -> Result:
        """As `Walker.walk`."""
        return _result(self.mmu.ask(state, self._nothing, request))

    def invalidate(self, linear: int | None) -> None:
        """As `Walker.invalidate`."""
        self.mmu.invalidate(linear)


class TracedWalker:
    """Who walks for a run all of whose accesses are traced: a `Walker`, and the processor's `Tracer`.

    A fill of the processor's TLB is asked as the access that missed; all others come from the hooks.

    Parameters
    ----------
    mmu : TracedMmu
    frames : int
        Of physical memory.
    most : int
        Accesses after which `EndOfTrace` is raised; 0: never.
    save : binary stream, optional
        Takes the trace, as docs/run.md has it.
    """

    def __init__(self, mmu: TracedMmu, frames: int, *, most: int = 0, save: BinaryIO | None = None) -> None:
        self.mmu = mmu
        self.accesses = 0
        self.recorder = Recorder(frames, self._full, _FEW if most else _CHUNK)
        self.failed: BaseException | None = None
        self._stop: Callable[[], None] = lambda: None
        self._most, self._save = most, save
        self._crossed: tuple[int, Access] | None = None
        """Page and kind of the second half of an access, which the hooks recorded before its page was filled."""
        self._state: State | None = None
        if save is not None:
            write_header(save)

    @property
    def counters(self) -> dict[str, int]:
        """What the gateware counted."""
        counts = self.mmu.counts()
        return {"cycles": counts.cycles, "marks": counts.marks, "mends": counts.mends}

    @property
    def address(self) -> int:
        """As `Tracer.address`."""
        return self.recorder.address

    def attach(self, stop: Callable[[], None]) -> None:
        """As `Tracer.attach`."""
        self._stop = stop

    def hook(self, name: str) -> ctypes.c_void_p:
        """As `Tracer.hook`."""
        return self.mmu.lane.hook(name)

    def aliases(self, page: int, frame: int) -> bool:
        """As `Tracer.aliases`."""
        return self.recorder.aliases(page, frame)

    def filled(self, page: int, frame: int, access: Access) -> None:
        """As `Tracer.filled`."""
        self.recorder.filled(page, frame, None if self._crossed == (page, access) else access)
        self._crossed = None

    def forget(self) -> None:
        """As `Tracer.forget`."""
        self.recorder.forget()

    def invalidate(self, linear: int | None) -> None:
        """As `Walker.invalidate`."""
        self.mmu.invalidate(linear)

    def walk(self, state: State, request: Request) -> Result:
        """As `Walker.walk`, after all that was recorded."""
        self._drain(state, request)
        if request.linear >= _HIGHEST and self._save is not None:
            raise ToolError(f"the program accesses {request.linear:#x}, which no trace file holds")
        answered = self._answered
        if not answered.stopped:
            self._keep(np.array([_word(request)], np.uint64))
        return _result(answered)

    def settle(self) -> None:
        """As `Tracer.settle`."""
        if self.failed is not None:
            raise self.failed
        if self._state is not None:
            self._drain(self._state, None)
        if self._most and self.accesses >= self._most:
            raise EndOfTrace

    def epoch(self) -> None:
        """An epoch ended."""
        self.mmu.epoch()
        if self._save is not None:
            self._save.write(np.array([EPOCH << KIND_SHIFT], "<u8").tobytes())

    def _drain(self, state: State, last: Request | None) -> None:
        recorded = self.recorder.take()
        if last is not None:
            asked = last.linear >> PAGE_SHIFT, last.access
            if _is_second_half(recorded, last):
                recorded = recorded[:-1]  # it is `last`
                self._crossed = asked
            elif len(recorded) or self._crossed != asked:  # not once more, after its fault
                self._crossed = None
        self._keep(recorded)
        self._answered = self.mmu.ask(state, recorded, last)
        self._state = state
        if self._answered.stopped and (last is None or self._answered.done < len(recorded)):
            raise RuleOfCachingBroken(
                f"an access that the processor could make was refused: {int(recorded[self._answered.done]):#x}"
            )

    def _keep(self, words: NDArray[np.uint64]) -> None:
        self.accesses += len(words)
        if self._save is not None:
            self._save.write(words.astype("<u8").tobytes())

    def _full(self) -> None:
        """The buffer of the hooks is full, in the midst of the program."""
        try:
            self.settle()
        except BaseException as error:  # cannot pass through compiled code
            self.recorder.take()
            self.failed = error
            self._stop()


def _is_second_half(recorded: NDArray[np.uint64], request: Request) -> bool:
    """Is a fill for the second page of the access that was recorded last, as two?"""
    if not len(recorded) or int(recorded[-1]) != _word(request) or request.linear & (1 << PAGE_SHIFT) - 1:
        return False
    return len(recorded) == 1 or int(recorded[-2]) >> PAGE_SHIFT == int(recorded[-1]) - 1 >> PAGE_SHIFT


def _word(request: Request) -> int:
    kind = int(request.access) | (0 if request.user else SUPERVISOR)
    return kind << KIND_SHIFT | request.linear & LINEAR


def replay_words(
    chunks: Iterable[Words],
    pages: NDArray[np.uint64],
    library: Path,
    profile: Profile,
    track: Track,
    *,
    latency: int = 1,
    outstanding: int = OUTSTANDING,
    memory_bytes: int = 1 << 30,
    epoch: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> TracedMmu:
    """The accesses of a file, through a process whose every page is anonymous memory.

    Parameters
    ----------
    chunks : iterable of uint64 arrays
        As `trace_files.read_words` gives them.
    pages : uint64 array
        The pages that they touch, ascending.
    epoch : int
        Soft-dirty is cleared after each so many accesses; 0: where the file says so.
    progress : callable
        Told how many accesses are done.

    Raises
    ------
    ToolError
        The memory is too small.
    """
    arena = Arena(memory_bytes)
    mmu = TracedMmu(library, arena.memory, latency=latency, outstanding=outstanding)
    kernel = Kernel(
        profile, track=track, control=CONTROL & ~(1 << Control.PKE), mmu=lambda memory: _Told(mmu), memory=arena.memory,
        reuse_frames=True,
    )  # fmt: skip
    process = kernel.processes[0]
    for start, count in pages_of(pages):
        kernel.mmap(process, start, count, "rwx", "anon", 0, ())
    kernel.clear_refs(0, "4")
    state = state_of(kernel, process)
    done = 0

    def go(words: NDArray[np.uint64]) -> None:
        tries = 0
        while len(words):
            answered = mmu.ask(state, words)
            if not answered.stopped:
                return
            tries = 0 if answered.done else tries + 1
            words = words[answered.done :]
            linear = int(words[0]) & LINEAR
            with kernel.flush():
                signal = faults.user_fault(process.mm, linear >> PAGE_SHIFT, answered.code)
            if signal is not None or tries > _RETRIES:
                raise ToolError(f"the access to {linear:#x} ends in {signal}")

    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            words = chunk[start : start + _CHUNK].copy()
            ends = np.flatnonzero(words >> np.uint64(KIND_SHIFT) == EPOCH)
            if epoch:
                words = np.delete(words, ends)
                ends = np.arange(-done % epoch or epoch, len(words) + 1, epoch)
            first = 0
            for end in ends.tolist():
                go(words[first:end])
                kernel.clear_refs(0, "4")
                mmu.epoch()
                first = end if epoch else end + 1
            go(words[first:])
            done += len(words) if epoch else len(words) - len(ends)
            progress(done)
    return mmu


class _Told:
    """The kernel's `Mmu` of a file's replay: it is told what to forget, and asked nothing."""

    def __init__(self, mmu: TracedMmu) -> None:
        self._mmu = mmu

    def run(self, state: State, requests: object) -> list[Result]:
        """Nobody asks."""
        raise AssertionError("a trace's kernel makes no access of its own")

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`."""
        self._mmu.invalidate(linear)
