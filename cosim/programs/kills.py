"""A run that is killed again and again, at moments that a seed draws, and goes on from its images.

A moment is a fill of the processor's TLB, or a file that a save opens or an image that is about to get its name.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.images import numbers, read_image
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.walkers import Walker
from ptewalk.model.memory import FixedMemory

__all__ = ["Killed", "kill_and_restore"]

_TOUCHES: Final = frozenset(("open", "os.rename"))
"""Audit events of Python that a save makes, in a folder whose name begins with a dot."""
MakeWalker = Callable[[FixedMemory], Walker]


@dataclass
class Killed:
    """What came of it.

    Attributes
    ----------
    kills, inside_a_save, from_the_start : int
        Kills; those that left an image that was not whole; those before the first image.
    compared : int
        Runs that went on from an image, and were compared.
    problems : list of str
        What differed.
    """

    kills: int = 0
    inside_a_save: int = 0
    from_the_start: int = 0
    compared: int = 0
    problems: list[str] = field(default_factory=list)


class _Moments:
    """Counts moments, and those inside saves; at one of them the process ends by SIGKILL."""

    def __init__(self) -> None:
        sys.addaudithook(self._event)
        self.begin()

    def begin(self, last: int = 0, *, in_save: bool = False) -> None:
        """Count from 0; the `last` moment, or the `last` one inside a save, is the end."""
        self.count = self.saves = 0
        self._last, self._in_save = last, in_save
        self.watches = False

    def _event(self, name: str, told: tuple[Any, ...]) -> None:
        if self.watches and name in _TOUCHES and "/.0" in str(told[0]):
            self.saves += 1
            self.tick()

    def tick(self) -> None:
        """A moment."""
        self.count += 1
        if (self.saves if self._in_save else self.count) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, running: ProgramRun) -> None:
        """Count those of a run."""
        fill = running.memory.fill

        def filled(*asked: Any) -> int | None:
            self.tick()
            return fill(*asked)

        running.memory.fill = filled  # type: ignore[method-assign, assignment]
        self.watches = True


_MOMENTS: list[_Moments] = []
"""One: an audit hook cannot be taken away."""


def _moments() -> _Moments:
    if not _MOMENTS:
        _MOMENTS.append(_Moments())
    return _MOMENTS[0]


def _run(
    settings: Settings, walker: MakeWalker, begin: Callable[[ProgramRun], None], watch: _Moments | None = None
) -> tuple[bytes, int, dict[int, dict[int, bytes]], int]:
    """(output, status, contents at the end of the last epoch, epochs)."""
    out = io.BytesIO()
    with ProgramRun(settings, walker, stdin=None, stdout=out, stderr=io.BytesIO()) as running:
        begin(running)
        if watch is not None:
            watch.watch(running)
        status = running.run()
        if watch is not None:
            watch.watches = False
        assert running.epochs is not None
        return out.getvalue(), status, running.epochs.contents(), len(running.epochs.done)


def kill_and_restore(
    settings: Settings,
    command: Sequence[str],
    walker: MakeWalker,
    count: int,
    seed: str,
    *,
    save_every: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Killed:
    """Kill a run `count` times, each time from its start, and go on from the last image that is there.

    Parameters
    ----------
    settings : Settings
        With epochs; where images go is chosen here.
    command : sequence of str
    walker : callable
        As `ProgramRun` takes it.
    count : int
    seed : str
        Draws the moments.
    save_every : int
        Each kill of so many is inside a save.
    progress : callable
        Told (kills done, kills).

    Raises
    ------
    ToolError
        The program cannot run, or is killed by something else.
    """
    rng, killed = random.Random(f"kills {seed}"), Killed()
    with tempfile.TemporaryDirectory(prefix="ptewalk-") as folder:
        whole, place = Path(folder, "whole"), Path(folder, "images")
        moments = _moments()
        moments.begin()
        output, status, contents, epochs = _run(
            replace(settings, checkpoint=whole), walker, lambda running: running.start(command[0], command[1:]), moments
        )
        totals = moments.count, moments.saves
        shutil.rmtree(whole)
        for number in range(count):
            shutil.rmtree(place, ignore_errors=True)
            in_save = number % save_every == save_every - 1
            moment = rng.randint(1, totals[in_save])
            scratch = Path(folder, "scratch")  # a killed run leaves it
            _killed_child(replace(settings, checkpoint=place, scratch=scratch), walker, command, moment, in_save)
            shutil.rmtree(scratch)
            killed.kills += 1
            there = list(place.iterdir()) if place.is_dir() else []
            killed.inside_a_save += any(path.name.startswith(".") for path in there)
            if not any(path.name.isdigit() for path in there):
                killed.from_the_start += 1
                progress(number + 1, count)
                continue
            last = numbers(place)[-1]
            files = read_image(place, last).state["files"]
            passed = next((one["passed"] for one in files if one["kind"] == "stream" and one["stream"] == 1), None)
            told, ended, found, done = _run(
                replace(settings, checkpoint=None),
                walker,
                lambda running, last=last: running.restore(place, last),  # type: ignore[misc]
            )
            killed.compared += 1
            right = output[passed:] if passed is not None else output[len(output) - len(told) :]
            wrong = [
                name
                for name, same in (
                    ("output", told == right),
                    ("status", ended == status),
                    ("number of epochs", last + done == epochs),
                    ("memory", not done or found == contents),
                )
                if not same
            ]
            if wrong:
                killed.problems.append(f"kill {number + 1}, moment {moment}, image {last}: {', '.join(wrong)} differ")
            progress(number + 1, count)
    return killed


def _killed_child(settings: Settings, walker: MakeWalker, command: Sequence[str], moment: int, in_save: bool) -> None:
    """A child runs the program from its start, and is killed at a moment."""
    child = os.fork()
    if not child:
        try:
            moments = _moments()
            moments.begin(moment, in_save=in_save)
            _run(settings, walker, lambda running: running.start(command[0], command[1:]), moments)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (-signal.SIGKILL, 1):
        raise ToolError(f"{command[0]}: the run that was to be killed ended with {status}")
