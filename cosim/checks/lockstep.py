"""The judge that runs the gateware in step with the golden model, and what watches each of its batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ptewalk.cosim.bench.conditions import BatchResult
from ptewalk.cosim.checks.golden import Golden, compare_responses
from ptewalk.cosim.checks.relation import RelationJudge
from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import SparseMemory
from ptewalk.model.scenario.compare import Difference
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.snapshot import Outcome
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_SHIFT
from ptewalk.rtl.description import DesignDescription

__all__ = ["LockstepJudge", "LogWatch", "Watch"]


class Watch(Protocol):
    """What watches an MMU beside its answers."""

    def take(self, kernel: Kernel) -> list[str]:
        """What differed since the last call; a step of this machine is over."""


class LogWatch:
    """Has the golden model eat what each batch told: event log, trace port, fault queue, counters, and the answers.

    Parameters
    ----------
    design : DesignDescription
    further : callable, optional
        What else differed since it was called last.

    Attributes
    ----------
    events, traced : int
        As in `Verdict`, added up.
    """

    def __init__(self, design: DesignDescription, further: Callable[[], list[str]] = list) -> None:
        self._further = further
        self._golden = Golden(design)
        self._found: list[str] = []
        self.events = 0
        self.traced = 0

    def __call__(self, result: BatchResult, memory: SparseMemory) -> None:
        verdict = self._golden.judge(result, physical_bits=memory.physical_bits)
        compare_responses(result, verdict)
        self.events += verdict.events
        self.traced += verdict.traced
        self._found += verdict.differences

    def take(self, kernel: Kernel) -> list[str]:
        """As `Watch.take`."""
        found, self._found = self._found + self._further(), []
        return found


class LockstepJudge(RelationJudge):
    """Runs the same scenario on the golden model, step by step, and compares everything after each step.

    First every word of every frame of physical memory, tables and data, and every answer, with the golden model; then
    the answers with the recording, where there is one.

    Parameters
    ----------
    picture : str, optional
        As in `RelationJudge`.
    watch : Watch, optional
        What it finds in a step differs in that step.

    Attributes
    ----------
    words : int
        Words of memory compared.
    differences : list of Difference
        Of a machine that is served: see `ServedState.run`.
    """

    def __init__(self, picture: str | None = None, watch: Watch | None = None) -> None:
        super().__init__(picture)
        self.words = 0
        self.differences: list[Difference] = []
        self._watch = watch
        self._golden: Replay | None = None

    def begin(self, run: Replay) -> None:
        """As `Judge.begin`."""
        self._golden = run.twin()

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference]:
        """As `Judge.step`."""
        return self.golden_side(run, index, outcome) + (super().step(run, index, outcome) or [])

    def golden_side(self, run: Replay, index: int, outcome: Outcome) -> list[Difference]:
        """What differs from the golden model after a step, whatever was recorded: logs, memory, answers."""
        assert self._golden is not None
        golden = self._golden.step()
        told = self._watch.take(run.kernel) if self._watch else []
        found = [Difference(run.scenario.name, index, "log", text, "what the golden model says") for text in told]
        found += self._compare_memory(run, index, self._golden.kernel.memory)
        for name in ("ret", "errno", "vals", "scan", "state"):
            captured, expected = getattr(outcome, name), getattr(golden, name)
            if captured != expected:
                found.append(Difference(run.scenario.name, index, f"golden model's {name}", captured, expected))
        return found

    def _compare_memory(self, run: Replay, index: int, expected: SparseMemory) -> list[Difference]:
        captured = run.kernel.memory
        name = run.scenario.name
        if captured.row_of_frame.keys() != expected.row_of_frame.keys():
            odd = sorted(captured.row_of_frame.keys() ^ expected.row_of_frame.keys())
            return [Difference(name, index, "frames", f"{odd[0]:#x} on one side only", "the same frames")]
        frames = list(expected.row_of_frame)
        rows = [np.fromiter((memory.row_of_frame[f] for f in frames), np.intp) for memory in (captured, expected)]
        self.words += len(frames) * captured.words.shape[1]
        differs = captured.words[rows[0]] != expected.words[rows[1]]
        if not differs.any():
            return []
        place, word = (int(axis[0]) for axis in np.nonzero(differs))
        address = (frames[place] << PAGE_SHIFT) + word * ENTRY_BYTES
        left, right = (
            int(memory.words[row[place], word]) for memory, row in zip((captured, expected), rows, strict=True)
        )
        return [Difference(name, index, f"golden model's word at {address:#x}", hex(left), hex(right))]
