"""A process of a run: what the kernel knows of it beside its memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptewalk.cosim.programs.errors import Blocked
from ptewalk.cosim.programs.open_files import Descriptor
from ptewalk.cosim.programs.registers import Registers
from ptewalk.cosim.programs.signals import Signals
from ptewalk.model.state.machine import Process

__all__ = ["Task"]


@dataclass(eq=False)
class Task:
    """One process (struct task_struct).

    Attributes
    ----------
    process : Process
        The model's.
    registers : Registers or None
        While it does not run.
    brk : int
        End of the heap, in bytes.
    path : bytes
        Of the program (/proc/PID/exe).
    waiting : Blocked or None
        What it waits for.
    status : int or None
        As wait4 gives it, once it ended.
    waited_for : bool
        Its parent took the status.
    """

    pid: int
    process: Process
    parent: Task | None = None
    registers: Registers | None = None
    descriptors: dict[int, Descriptor] = field(default_factory=dict)
    folder: bytes = b"/"
    umask: int = 0o022
    brk: int = 0
    path: bytes = b""
    name: bytes = b""
    arguments: list[bytes] = field(default_factory=list)
    clear_tid: int = 0
    group: int = 1
    waiting: Blocked | None = None
    status: int | None = None
    waited_for: bool = False
    signals: Signals = field(default_factory=Signals)
    alarm: int | None = None
    """Virtual time at which SIGALRM comes."""
    alarm_again: int = 0
    """Nanoseconds after which it comes again."""
    timed_out: bool = False
    """Its waiting came to an end because of the time."""
    frees_parent: bool = False
    """It was made by vfork, and has not yet called execve."""

    def free_number(self, least: int = 0) -> int:
        """The lowest number of no descriptor."""
        number = least
        while number in self.descriptors:
            number += 1
        return number
