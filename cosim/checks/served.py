"""The machine that a scenario leaves behind after one of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.lockstep import LockstepJudge
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import Unsupported

__all__ = ["ServedState"]

_NAMES_SHOWN: Final = 5


@dataclass(frozen=True)
class ServedState:
    """Which state is served.

    Attributes
    ----------
    file : str
        Scenario file.
    name : str or None
        Its scenario; None: the file has one only.
    step : int or None
        The last step that is run, from 0; None: all.
    profile, track : str
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    """

    file: str
    name: str | None = None
    step: int | None = None
    profile: str = "linux-6.1"
    track: str = "off"
    soft_dirty: bool = True

    def scenario(self) -> Scenario:
        """The scenario. Raises `ToolError` when it, its profile or the step does not exist."""
        names = None if self.name is None else (self.name,)
        found = ReplayJob((self.file,), self.profile, names=names).scenarios()
        if len(found) != 1:
            some = ", ".join(scenario.name for scenario in found[:_NAMES_SHOWN])
            more = ", ..." if len(found) > _NAMES_SHOWN else ""
            raise ToolError(f"{self.file} has {len(found)} scenarios ({some}{more}): choose one with --name")
        steps = len(found[0].steps)
        if self.step is not None and not 0 <= self.step < steps:
            raise ToolError(f"no step {self.step} in scenario {found[0].name!r}: it has steps 0 to {steps - 1}")
        return found[0]

    def run(self, mmu: Callable[[SparseMemory], Mmu] = ModelMmu, judge: LockstepJudge | None = None) -> Kernel:
        """The machine after the step.

        With `judge`, what differs from the golden model in the first step that does is its `differences`.

        Raises
        ------
        ToolError
            As `scenario`, and when the model cannot follow a step.
        """
        scenario = self.scenario()
        profile, exact = NAMED[self.profile]
        replay = Replay(
            scenario,
            profile,
            track=Track[self.track.upper()],
            soft_dirty=self.soft_dirty,
            mmu=mmu,
            raw_tables=False,
            exact=exact,
        )
        last = len(scenario.steps) if self.step is None else self.step + 1
        if judge is not None:
            judge.begin(replay)
        for index in range(last):
            try:
                outcome = replay.step()
                if judge is not None and not judge.differences:
                    judge.differences = judge.golden_side(replay, index, outcome)
            except Unsupported as error:
                raise ToolError(
                    f"scenario {scenario.name!r}, step {index}: {error}; stop before it with --step"
                ) from None
        return replay.kernel
