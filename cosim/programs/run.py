"""A run: who runs next, until the first process ends."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs import calls_files, calls_memory, calls_names, calls_processes, calls_signals, calls_time
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.call_numbers import MARKER, NUMBERS
from ptewalk.cosim.programs.capture import Capture
from ptewalk.cosim.programs.cpu import SYSCALL_BYTES, Cpu, Stop
from ptewalk.cosim.programs.dirty_log import LoggedWalker, ProgramLog
from ptewalk.cosim.programs.engine import ProgramEngine
from ptewalk.cosim.programs.epochs import Epochs, Every, Present
from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.images import Pages, write_image
from ptewalk.cosim.programs.open_files import Stream
from ptewalk.cosim.programs.revive import revive
from ptewalk.cosim.programs.signals import (
    DEFAULT,
    IGNORE,
    IGNORED_BY_DEFAULT,
    SA_RESETHAND,
    SA_RESTART,
    SIGKILL,
    SIGSEGV,
    STOPPING,
    Action,
    Information,
    enter_handler,
)
from ptewalk.cosim.programs.swapper import Swapper
from ptewalk.cosim.programs.system import MASK, System
from ptewalk.cosim.programs.task import Task
from ptewalk.cosim.programs.trace import TracedWalker
from ptewalk.cosim.programs.tree import Tree
from ptewalk.cosim.programs.user_memory import ProgramMmu, UserMemory
from ptewalk.cosim.programs.walkers import Walker
from ptewalk.cosim.programs.watchdog import Watchdog
from ptewalk.model.errors import Signal
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import FixedMemory
from ptewalk.model.mmu import Mmu
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import NAMED
from ptewalk.model.pte import Entries
from ptewalk.model.state.machine import CONTROL, Process
from ptewalk.model.state.tables import PageTables
from ptewalk.model.x86 import Control

__all__ = ["ProgramRun", "Settings"]

TABLE: Final = (calls_files, calls_memory, calls_names, calls_processes, calls_signals, calls_time)
"""Their functions have entered themselves in `system.CALLS`."""
_SIGNALS: Final = {Signal.MAPERR: 11, Signal.ACCERR: 11, Signal.PKUERR: 11, Signal.KERNEL: 11, Signal.BUS: 7}
_SHOWN: Final = ("cycles", "hits", "marks", "mends", "delivered_faults")
"""Counters of the gateware that are told."""
_CODES: Final = {Signal.MAPERR: 1, Signal.ACCERR: 2, Signal.BUS: 2}
SI_KERNEL: Final = 0x80
_USER_FAULT: Final = 4
"""Error code of a page fault in a signal's frame: of user mode."""
_RESTARTED: Final = frozenset(NUMBERS[name] for name in ("read", "write", "readv", "writev", "wait4", "futex"))
_VECTORS: Final = {0: 8, 1: 5, 3: 5, 4: 11, 6: 4, 16: 8, 17: 7, 19: 8}
"""Exception to signal; SIGSEGV for all others."""


@dataclass(frozen=True)
class Settings:
    """What a run is like.

    Attributes
    ----------
    profile : Profile
    track : Track
    root : Path
        The program's files, which are only read.
    scratch : Path or None
        Where it writes; None: a folder that is gone afterwards.
    scratch_bytes, memory_bytes : int
    seconds : float
        Of the host; 0: without end.
    seed : int
    environment : tuple of bytes
    exact : bool
        Pagemap tells which pages may have changed, whatever the kernel says.
    epoch : Every or None
        When an epoch ends; None: there are none.
    checkpoint : Path or None
        Where an image is written at the end of each `every`-th epoch.
    told, design : str
        What images say of who walks: the backend, and which gateware ("mmu-uncached" caches nothing).
    swap : int
        Private pages that a process may keep in memory, the rest is swapped out; 0: all.
    pages : bool
        Which pages were reported, changed and lost is kept, epoch by epoch.
    engine : bool
        What images say: a table engine of gateware was beside the MMU.
    log : bool
        The MMU's dirty log reports, not pagemap; who walks is a `LoggedWalker`.
    """

    profile: Profile
    track: Track = Track.OFF
    root: Path = Path("/")
    scratch: Path | None = None
    scratch_bytes: int = 1 << 30
    memory_bytes: int = 1 << 30
    seconds: float = 0
    seed: int = 0
    environment: tuple[bytes, ...] = field(
        default=(b"PATH=/usr/local/bin:/usr/bin:/bin", b"HOME=/", b"LANG=C.UTF-8", b"USER=user")
    )
    exact: bool = False
    epoch: Every | None = None
    checkpoint: Path | None = None
    every: int = 1
    told: str = ""
    design: str = "mmu-uncached"
    pages: bool = False
    swap: int = 0
    engine: bool = False
    log: bool = False

    def as_json(self) -> dict[str, Any]:
        """What an image says of them; `from_json` takes it."""
        return {
            "profile": "exact" if self.exact else self.profile.name,
            "track": self.track.name.lower(),
            "root": str(self.root),
            "backend": self.told,
            "design": self.design,
            "engine": self.engine,
            "log": self.log,
            "epoch": None if self.epoch is None else str(self.epoch),
            **{name: getattr(self, name) for name in ("scratch_bytes", "memory_bytes", "seconds", "seed", "swap")},
        }

    @staticmethod
    def from_json(said: Any) -> Settings:
        """The settings of an image. Raises `ToolError`."""
        try:
            profile, exact = NAMED[said["profile"]]
            numbers = {name: said[name] for name in ("scratch_bytes", "memory_bytes", "seconds", "seed")}
            numbers["swap"] = said.get("swap", 0)
            if not all(isinstance(number, int | float) and number >= 0 for number in numbers.values()):
                raise ValueError("a number")
            return Settings(
                *(profile, Track[said["track"].upper()], Path(said["root"])),
                epoch=None if said["epoch"] is None else Every.parse(said["epoch"]),
                exact=exact,
                told=str(said["backend"]),
                design=str(said.get("design", "mmu-uncached")),
                engine=bool(said.get("engine", False)),
                log=bool(said.get("log", False)),
                **numbers,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ToolError(f"the image's settings are none: {error}") from error

    def with_environment(self, variables: Sequence[str]) -> Settings:
        """The same with some variables, NAME=VALUE, set."""
        given = {variable.split("=", 1)[0].encode(): os.fsencode(variable) for variable in variables}
        kept = tuple(one for one in self.environment if one.split(b"=", 1)[0] not in given)
        return replace(self, environment=kept + tuple(given.values()))


class ProgramRun:
    """One run of one program and its children.

    Parameters
    ----------
    settings : Settings
    walker : callable (FixedMemory) -> Walker
        Makes the MMU.
    engine : callable (FixedMemory) -> ProgramEngine, optional
        Makes what does to tables what clear_refs, pagemap and mremap do; without it the model's own arrays.
    stdin, stdout, stderr : binary streams
        What the program's standard streams are; standard input may be None: nothing.

    Raises
    ------
    ToolError
        Memory or scratch folder cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        walker: Callable[[FixedMemory], Walker],
        *,
        engine: Callable[[FixedMemory], ProgramEngine] | None = None,
        stdin: BinaryIO | None,
        stdout: BinaryIO,
        stderr: BinaryIO,
    ) -> None:
        self.settings = settings
        self.arena = Arena(settings.memory_bytes)
        self.walker = walker(self.arena.memory)
        self.mmu = ProgramMmu(self.walker.walk, self.walker.invalidate)
        self.engine = self.mmu.engine = None if engine is None else engine(self.arena.memory)
        self.log = self._logged() if settings.log else None
        self._left = ExitStack()
        self.kernel = Kernel(
            settings.profile,
            track=settings.track,
            control=CONTROL & ~(1 << Control.PKE),
            mmu=self._mmu,
            exact=settings.exact,
            memory=self.arena.memory,
            reuse_frames=True,
            tables=PageTables if self.log is None else self.log.tables,
        )
        self.memory = UserMemory(self.kernel, self.mmu, self.arena)
        if settings.swap:
            self.memory.swapper = Swapper(self.kernel, settings.swap)
        tree = Tree(settings.root, self._scratch(), settings.scratch_bytes)
        self._streams = [Stream(0, stdin, None), Stream(1, None, stdout), Stream(2, None, stderr)]
        self.system = System(self.kernel, self.memory, self.arena, tree, settings.seed, self._streams)
        self.cpu = Cpu(self.arena, self.memory, self.system.system_call)
        self.system.cpu = self.cpu
        self.cpu.clock = lambda: self.system.now
        self.tracer = self.walker if isinstance(self.walker, TracedWalker) else None
        if self.tracer is not None:
            self.cpu.trace(self.tracer)
        here, root = Path.cwd(), settings.root.resolve()
        if here.is_relative_to(root):
            self.system.current.folder = b"/" + os.fsencode(here.relative_to(root)).removeprefix(b".")
        self.seconds = 0.0
        self.epochs = Epochs(self.kernel, settings.epoch, settings.pages, self.log) if settings.epoch else None
        self._departures = 0
        self.system.before_call = self._before_call
        if self.epochs is not None:
            self.system.before_clear = self.epochs.before_clear
        self.capture = Capture(self.system, settings.as_json()) if settings.checkpoint else None
        self.watch: Callable[[], None] = lambda: None
        """Called when the program starts, and at the end of each epoch before soft-dirty is cleared."""
        self.images = 0
        self.image_bytes = 0
        self._ended_before = 0
        """Number of the system call before which the last epoch ended."""

    def _logged(self) -> ProgramLog:
        """Who keeps the records of the MMU, and what software appends."""
        log = ProgramLog(Entries(self.settings.profile, track=self.settings.track))
        if not isinstance(self.walker, LoggedWalker):
            raise ToolError("a dirty log is of an MMU that caches: choose one by --design")
        self.walker.told = log.record
        if self.engine is not None:
            self.engine.moved = log.append
        return log

    def _mmu(self, _: object) -> Mmu:
        return self.mmu

    def _scratch(self) -> Path:
        if self.settings.scratch is None:
            return Path(self._left.enter_context(tempfile.TemporaryDirectory(prefix="ptewalk-")))
        try:
            self.settings.scratch.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ToolError(f"{self.settings.scratch}: {error.strerror}; name a folder that can be made") from error
        return self.settings.scratch

    def close(self) -> None:
        """Give back what the run holds; the scratch folder too, unless it was named."""
        self.system.cache.close()
        self._left.close()

    def __enter__(self) -> ProgramRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, path: str, arguments: Sequence[str]) -> None:
        """Load the program. Raises `ToolError` when it cannot run."""
        words = [os.fsencode(word) for word in (path, *arguments)]
        name = self.system.find(words[0], self.settings.environment)
        try:
            started = self.system.execute(name, words, self.settings.environment)
        except CallFails as error:
            raise ToolError(f"{path}: {self.system.explain(name) or error}") from error
        self.system.begin(started)
        self.system.replaced = False
        self.system.current.registers = self.cpu.save()

    def run(self) -> int:
        """Run to the end; the first process's status, as wait4 gives it.

        Raises
        ------
        ToolError
            A system call is missing, a limit is reached, or every process waits for ever.
        """
        self.watch()
        if self.epochs is not None:
            self.epochs.begin([task.process for task in self.system.tasks.values() if task.status is None])
            self._departures = self.system.departures
        began = time.monotonic()
        first = self.system.tasks[1]
        dog = Watchdog(self.cpu.abort, self.settings.seconds)
        try:
            with dog:
                while first.status is None:
                    self._step(self._next())
                    if self.cpu.aborted:
                        raise self._late() if dog.late else KeyboardInterrupt
        finally:
            self.seconds += time.monotonic() - began
        for task in [task for task in self.system.tasks.values() if task.status is None]:
            self._put(task)
            self.system.end(task, 9)
        return first.status

    def _next(self) -> Task:
        """The process that runs next: the current one as long as it can, then the others by their numbers."""
        system = self.system
        alive = [task for task in system.tasks.values() if task.status is None]
        start = next((place for place, task in enumerate(alive) if task is system.current), 0)
        if system.yields:
            start, system.yields = start + 1, False
        order = [alive[(start + place) % len(alive)] for place in range(len(alive))]
        for task in order:
            if task.waiting is None or task.waiting.ready() or task.signals.next() is not None:
                return task
        deadlines = [task.waiting.deadline for task in order if task.waiting and task.waiting.deadline is not None]
        alarms = [task.alarm for task in order if task.alarm is not None]
        if not deadlines and not alarms:
            raise ToolError("every process of the program waits for ever; nothing can wake it")
        system.now = max(system.now, min(deadlines + alarms))
        for task in order:
            if task.alarm is not None and task.alarm <= system.now:
                system.ring(task)
                return task
        woken = next(task for task in order if task.waiting and task.waiting.deadline == min(deadlines))
        woken.waiting, woken.timed_out = None, True
        return woken

    def _put(self, task: Task) -> None:
        """Have `task` be the one that runs."""
        current = self.system.current
        if current is task and task.registers is None:
            return
        if current.status is None and current.registers is None:
            current.registers = self.cpu.save()
        self.system.current = task
        assert task.registers is not None
        self.cpu.load(task.registers)
        task.registers = None
        self.memory.switch(task.process)

    def _late(self) -> ToolError:
        return ToolError(
            f"the program ran for {self.settings.seconds:g} seconds and has not ended; give it more with --time"
        )

    def _step(self, task: Task) -> None:
        self._put(task)
        while (information := task.signals.next()) is not None:
            task.signals.pending.remove(information)
            self._deliver(task, information)
            if task.status is not None:
                return
        if task.waiting is not None and not task.waiting.ready():
            return
        task.waiting = None
        every = self.settings.epoch
        counted = every.count if every is not None and every.kind == "instructions" else 0
        stop = self.cpu.run(counted)
        if stop.reason == "pause" and counted:
            self.end_epoch()
        self._stopped(task, stop)

    def _stopped(self, task: Task, stop: Stop) -> None:
        if stop.reason == "fault":
            assert self.memory.fault is not None
            signal, address = self.memory.fault
            self._force(task, Information(_SIGNALS[signal], _CODES.get(signal, SI_KERNEL), address, error=_USER_FAULT))
        elif stop.reason == "exception":
            code = {0: 1, 6: 2}.get(stop.vector, SI_KERNEL)  # FPE_INTDIV, ILL_ILLOPN
            self._force(task, Information(_VECTORS.get(stop.vector, SIGSEGV), code, self.cpu["rip"]))

    def _force(self, task: Task, information: Information) -> None:
        """force_sig: where it is blocked or ignored, the process dies."""
        signals = task.signals
        if signals.mask >> information.signal - 1 & 1 or signals.action(information.signal).handler == IGNORE:
            signals.actions[information.signal] = Action()
        self._deliver(task, information)

    def _deliver(self, task: Task, information: Information) -> None:
        """One signal to the process that is on the processor."""
        signal, signals = information.signal, task.signals
        action = signals.action(signal)
        if action.handler == DEFAULT or signal == SIGKILL:
            if signal in STOPPING:
                raise ToolError(f"the program stops itself by signal {signal}, and nobody could let it go on")
            if signal not in IGNORED_BY_DEFAULT:
                self.system.end(task, signal)
            return
        if action.handler == IGNORE:
            return
        if task.waiting is not None:
            self._interrupt(task, action)
        if action.flags & SA_RESETHAND:
            signals.actions[signal] = Action()
        try:
            self.cpu.load(enter_handler(self.memory, signals, self.cpu.save(), action, information))
        except CallFails:  # there is no stack for it
            self.system.end(task, SIGSEGV)

    def _interrupt(self, task: Task, action: Action) -> None:
        """A system call that waits: it is made again after the handler, or ends with EINTR."""
        restarts = action.flags & SA_RESTART and self.cpu["rax"] in _RESTARTED
        if not restarts and task.waiting is not None and not task.frees_parent:
            self.cpu["rip"] = self.cpu["rip"] + SYSCALL_BYTES
            self.cpu["rax"] = -errno.EINTR & MASK
        task.waiting = None

    def _before_call(self, number: int) -> None:
        """Does an epoch end before this system call?"""
        every = None if self.epochs is None else self.epochs.every
        if every is None:
            return
        made = self.system.calls.total() + 1
        if made == self._ended_before:  # it was made before, and had to wait, or an image was made of it
            return
        if (every.kind == "syscalls" and not made % every.count) or (every.kind == "marker" and number == MARKER):
            self._ended_before = made
            self.end_epoch()

    def end_epoch(self) -> None:
        """An epoch ends: contents are compared with what is reported."""
        assert self.epochs is not None
        if isinstance(self.walker, TracedWalker | LoggedWalker):
            self.walker.epoch()
        alive = [task for task in self.system.tasks.values() if task.status is None]
        departures, self._departures = self._departures, self.system.departures
        left = departures != self.system.departures
        origins = dict(self.system.origins)
        self.system.origins.clear()
        self.epochs.end([task.process for task in alive], origins, somebody_left=left, observe=self._observe)

    def _observe(self, found: Mapping[Process, Sequence[Present]]) -> None:
        """Tell who watches, and write an image where one is due."""
        self.watch()
        if self.capture is None or self.settings.checkpoint is None or self.epochs is None:
            return
        self.capture.note(found)
        if len(self.epochs.done) % self.settings.every:
            return
        image = self.capture.take(self.images + 1, found, self.cpu.save())
        self.image_bytes += write_image(self.settings.checkpoint, self.images + 1, image)
        self.images += 1

    def restore(self, folder: Path, number: int) -> None:
        """Go on from an image instead of from a program's start. Raises `ToolError`."""
        revive(self.system, number, Pages(folder), self._streams)
        self._ended_before = self.system.calls.total() + 1

    def figures(self) -> dict[str, Any]:
        """What the run counted."""
        return {
            "system_calls": self.system.calls.total(),
            "walks": self.mmu.walks,
            **self.memory.figures.as_json(),
            "frames": len(self.arena.memory.row_of_frame),
            **({"swapped_out": self.memory.swapper.out} if self.memory.swapper else {}),
            **({"images": self.images, "image_bytes": self.image_bytes} if self.capture else {}),
            **{name: count for name, count in self.walker.counters.items() if name in _SHOWN},
            **({"engine": self.engine.figures} if self.engine is not None else {}),
            **({"log": self.log.figures} if self.log is not None else {}),
            "seconds": round(self.seconds, 3),
        }
