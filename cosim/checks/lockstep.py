"""The gateware as the operating system's MMU, and the judge that runs it in step with the golden one."""

from __future__ import annotations

import numpy as np

from ptewalk.cosim.checks.relation import RelationJudge
from ptewalk.model.memory import SparseMemory
from ptewalk.model.scenario.compare import Difference
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.snapshot import Outcome
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_SHIFT

__all__ = [
    "LockstepJudge",
]


class LockstepJudge(RelationJudge):
    """Runs the same scenario on the golden model, step by step, and compares everything after each step.

    First every word of every frame of physical memory, tables and data, and every answer, with the golden model; then
    the answers with the recording, where there is one.

    Attributes
    ----------
    words : int
        Words of memory compared.
    """

    def __init__(self, picture: str | None = None) -> None:
        super().__init__(picture)
        self.words = 0
        self._golden: Replay | None = None

    def begin(self, run: Replay) -> None:
        """As `Judge.begin`."""
        self._golden = run.twin()

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference]:
        """As `Judge.step`."""
        assert self._golden is not None
        golden = self._golden.step()
        found = self._compare_memory(run, index, self._golden.kernel.memory)
        for name in ("ret", "errno", "vals", "scan", "state"):
            captured, expected = getattr(outcome, name), getattr(golden, name)
            if captured != expected:
                found.append(Difference(run.scenario.name, index, f"golden model's {name}", captured, expected))
        return found + (super().step(run, index, outcome) or [])

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
