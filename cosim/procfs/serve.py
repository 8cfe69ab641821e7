"""`ptewalk procfs`: the machine that a scenario leaves behind, served as a /proc tree to real programs.

The tree is model/proc/files.py's; fuse_tree.py puts it behind FUSE. With the gateware the scenario runs in the
simulator, every store and load through the gateware; the machine is then handed over whole, tables and data as the
gateware left them, and what is written to clear_refs afterwards is done by software.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import PROFILES, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import Unsupported

__all__ = ["ServedState", "check_mountpoint", "serve"]

_DEVICE = Path("/dev/fuse")
_NAMES_SHOWN = 5


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

    def run(self, mmu: Callable[[SparseMemory], Mmu] = ModelMmu) -> Kernel:
        """The machine after the step.

        Raises
        ------
        ToolError
            As `scenario`, and when the model cannot follow a step.
        """
        scenario = self.scenario()
        replay = Replay(
            scenario,
            PROFILES[self.profile],
            track=Track[self.track.upper()],
            soft_dirty=self.soft_dirty,
            mmu=mmu,
            raw_tables=False,
        )
        last = len(scenario.steps) if self.step is None else self.step + 1
        for index in range(last):
            try:
                replay.step()
            except Unsupported as error:
                raise ToolError(
                    f"scenario {scenario.name!r}, step {index}: {error}; stop before it with --step"
                ) from None
        return replay.kernel

    def run_on_gateware(self, simulator: str | None, *, timeout: float = 3600.0) -> Kernel:
        """As `run`, with every access in the simulator, through the gateware."""
        from ptewalk.cosim.runs.gateware import BuiltWalker
        from ptewalk.cosim.simulate.run import run_test
        from ptewalk.rtl.mmu import MmuConfig
        from ptewalk.rtl.walker import WalkerConfig

        self.scenario()
        built = BuiltWalker.make(simulator, MmuConfig(WalkerConfig(soft_dirty=self.soft_dirty)))
        values = asdict(self) | {"file": os.path.abspath(self.file)}
        result = run_test(
            built.model, "ptewalk.cosim.runs.inside.tb_procfs", testcase="left_behind", values=values, timeout=timeout
        )
        if not result.passed:
            raise ToolError(f"{built.simulator}: {result.message} (log: {result.log})")
        kernel = pickle.loads(result.arrays["kernel"].tobytes())
        assert isinstance(kernel, Kernel)
        return kernel


def check_mountpoint(mountpoint: Path) -> None:
    """`ToolError` when nothing can be mounted there."""
    try:
        if not mountpoint.is_dir():
            what = "is not a folder" if mountpoint.exists() else "does not exist"
            raise ToolError(f"{mountpoint} {what}: make one with mkdir {mountpoint}")
        if any(mountpoint.iterdir()):
            raise ToolError(f"{mountpoint} is not empty: name an empty folder to mount on")
    except OSError as error:
        raise ToolError(f"{mountpoint}: {error.strerror}; if a mount was left there: umount {mountpoint}") from None
    if not _DEVICE.exists():
        raise ToolError(
            f"there is no {_DEVICE}: load the kernel's module with modprobe fuse, or let the container have it"
        )


def serve(kernel: Kernel, mountpoint: Path, *, privileged: bool, foreground: bool, ready: Callable[[], None]) -> None:
    """Serve `kernel` at `mountpoint`.

    Parameters
    ----------
    privileged : bool
        Readers open pagemap with CAP_SYS_ADMIN.
    foreground : bool
        True: returns when it is unmounted, by umount, SIGINT or SIGTERM. False: returns when it is mounted; a process
        of its own serves on until then.
    ready : callable
        Called when it is mounted.

    Raises
    ------
    ToolError
        mfusepy or libfuse is missing, or mounting was refused.
    """
    from ptewalk.cosim.procfs.fuse_tree import mount

    if foreground:
        mount(kernel, mountpoint, privileged=privileged, ready=ready)
        return
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        if answer != "mounted":
            raise ToolError(answer or "the serving process died before it had mounted")
        ready()
        return
    os.close(reading)
    _detach()

    def say(answer: str) -> None:
        os.write(writing, answer.encode())
        os.close(writing)

    try:
        mount(kernel, mountpoint.absolute(), privileged=privileged, ready=lambda: say("mounted"))
    except ToolError as error:
        say(str(error))
    finally:
        os._exit(0)


def _detach() -> None:
    """Leave the terminal: a session of its own, no standard streams."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
