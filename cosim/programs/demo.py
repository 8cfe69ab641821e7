"""A program twice: Linux learns of each page's first write by a page fault, then the gateware marks it by itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.table import tracking_cycles
from ptewalk.cosim.programs.walkers import Walker
from ptewalk.model.linux import Track
from ptewalk.model.memory import FixedMemory

__all__ = ["GATEWARE", "KERNEL", "Frame", "Passed", "Place", "compared", "watch"]

KERNEL: Final = Track.OFF
"""The kernel's way: clear_refs write-protects, and the next write faults."""
GATEWARE: Final = Track.NATIVE
"""The gateware's: it marks the entry as it walks."""
Place = tuple[int, int]
"""Process and page."""


@dataclass(frozen=True)
class Frame:
    """What an epoch looked like at its end.

    Attributes
    ----------
    reported : frozenset of Place
        Pages that pagemap reports as written in the epoch.
    lost : int
        Pages that changed and are not reported.
    faults, marks : int
        Since the program began.
    """

    reported: frozenset[Place]
    lost: int
    faults: int
    marks: int


@dataclass(frozen=True)
class Passed:
    """A run that has ended.

    Attributes
    ----------
    frames : tuple of Frame
        One an epoch.
    faults, marks : int
        Of the whole run.
    output : bytes
    status : int
        As wait4 gives it.
    """

    frames: tuple[Frame, ...]
    faults: int
    marks: int
    output: bytes
    status: int

    @property
    def lost(self) -> int:
        """Pages that changed and were not reported, of all epochs."""
        return sum(frame.lost for frame in self.frames)


def _places(runs: dict[int, list[list[int]]]) -> Iterator[Place]:
    for process, pieces in runs.items():
        for first, count in pieces:
            for page in range(first, first + count):
                yield process, page


def watch(
    settings: Settings,
    walker: Callable[[FixedMemory], Walker],
    command: Sequence[str],
    track: Track,
    told: Callable[[Frame], None] = lambda frame: None,
) -> Passed:
    """Run a program to its end.

    Parameters
    ----------
    settings : Settings
        With an epoch.
    walker : callable
        As `ProgramRun` takes it.
    command : sequence of str
        Program and arguments.
    track : Track
    told : callable
        Told of each epoch as it ends.

    Raises
    ------
    ToolError
        The program cannot run.
    """
    frames: list[Frame] = []
    out = io.BytesIO()
    chosen = replace(settings, track=track, pages=True)
    with ProgramRun(chosen, walker, stdin=None, stdout=out, stderr=out) as running:
        epochs = running.epochs
        assert epochs is not None

        def ended() -> None:
            if len(epochs.done) > len(frames):
                figures = running.figures()
                reported = frozenset(_places(epochs.pages[-1]["reported"]))
                frames.append(Frame(reported, epochs.done[-1].lost, figures["faults"], figures.get("marks", 0)))
                told(frames[-1])

        running.watch = ended
        running.start(command[0], command[1:])
        status = running.run()
        figures = running.figures()
    return Passed(tuple(frames), figures["faults"], figures.get("marks", 0), out.getvalue(), status)


def compared(kernel: Passed, gateware: Passed, *, latency: int, trap: int) -> dict[str, Any]:
    """Both ways beside each other.

    Parameters
    ----------
    kernel, gateware : Passed
    latency, trap : int
        Cycles of memory, and of a page fault in software, as `table.tracking_cycles` takes them.

    Returns
    -------
    dict
        "epochs", "same" (epochs that report the same pages), "reported" (pages, of all epochs), "lost", "output" (is it
        the same), and of "kernel" and "gateware" each "faults", "marks" and "tracking_cycles".
    """
    fewest = min(kernel.faults, gateware.faults)

    def cost(passed: Passed) -> dict[str, int]:
        counts = {"faults": passed.faults, "marks": passed.marks}
        return {**counts, "tracking_cycles": tracking_cycles(counts, fewest, latency=latency, trap=trap)}

    pairs = zip(kernel.frames, gateware.frames, strict=False)
    return {
        "epochs": max(len(kernel.frames), len(gateware.frames)),
        "same": sum(one.reported == other.reported for one, other in pairs),
        "reported": sum(len(frame.reported) for frame in gateware.frames),
        "lost": kernel.lost + gateware.lost,
        "output": (kernel.output, kernel.status) == (gateware.output, gateware.status),
        "kernel": cost(kernel),
        "gateware": cost(gateware),
    }
