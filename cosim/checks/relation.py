"""Where a replay may legally differ from a recording: the only place that says so.

In `off` nothing may. In `fault` and `native` the MMU closes holes of the recorded kernels, and one rule stands:

R1. A page reads soft-dirty where the recording reads clean, if a user access (or the kernel's copy to user memory, or
    its store through get_user_pages, as by /proc/PID/mem) stored to it since the last clear. These are the stores that
    the kernel loses: writable entries that were never marked. Each use is counted as `closed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptewalk.model.linux import Track
from ptewalk.model.scenario.compare import Difference
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import Judge
from ptewalk.model.scenario.snapshot import Outcome

__all__ = ["RelationJudge"]

_DIRTY = "D"


class RelationJudge(Judge):
    """Compares with the recording under the rules above.

    Parameters
    ----------
    picture : str, optional
        Name of a scenario whose pages are kept after each step.

    Attributes
    ----------
    closed : int
        Uses of R1: one for each page and step.
    picture : list of {"op", "pages", "ret", "errno", "vals"}
        For `pictures.page_map`.
    """

    def __init__(self, picture: str | None = None) -> None:
        self.closed = 0
        self.picture: list[dict[str, Any]] = []
        self._picture = picture

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference] | None:
        """As `Judge.step`."""
        if run.scenario.name == self._picture:
            pages = {str(who): snapshot.pages for who, snapshot in outcome.state.items()}
            answer = {"ret": outcome.ret, "errno": outcome.errno, "vals": outcome.vals}
            self.picture.append({"op": run.scenario.steps[index].op, "pages": pages} | answer)
        return super().step(run, index, outcome)

    def allowed(self, run: Replay) -> Callable[[int, int, Any, Any], bool]:
        """R1, for the process and page that `differences` asks about."""
        kernel = run.kernel
        if kernel.track == Track.OFF:
            return super().allowed(run)

        def legal(who: int, at: int, captured: tuple[Any, ...] | None, expected: tuple[Any, ...] | None) -> bool:
            if captured is None or captured[0].count(_DIRTY) != 1:
                return False
            clean = (captured[0].replace(_DIRTY, ""), *captured[1:])
            if clean != expected and not (expected is None and not clean[0]):
                return False
            mm = kernel.processes[who].mm
            if kernel.base + at not in mm.stored and kernel.base + at not in mm.gup_stored:
                return False
            self.closed += 1
            return True

        return legal
