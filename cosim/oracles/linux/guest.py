"""A Linux kernel under QEMU (TCG), whose memory this process maps: what is common to all guests.

The guest's memory is a file. The guest's init (an agent of the project) shows a mailbox in it; a byte over the serial
port says that a command stands there, and a line that comes back that the answer does.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.channel import Channel, Qmp
from ptewalk.cosim.oracles.linux.image import GuestKernel, program
from ptewalk.cosim.oracles.linux.kernels import find_kernel
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.model import x86

__all__ = ["Guest", "GuestDied", "missing_tools", "require_tools"]

BOOT_SECONDS: Final = 120.0
MEBIBYTE: Final = 1 << 20
MAILBOX_BYTES: Final = 2 * MEBIBYTE
AT_COMMAND: Final = 0
"""Byte offset in the mailbox: the same in each agent."""
COMMAND_LINE: Final = (
    "console=ttyS0 quiet panic=-1 oops=panic nokaslr norandmaps nopti mitigations=off numa_balancing=disable"
    " transparent_hugepage=madvise random.trust_cpu=on 8250.nr_uarts=2"
    # Newer kernels let only a debugger force writes through /proc/PID/mem, and have a thread that clears A of samples.
    " proc_mem.force_override=always damon_stat.enabled=0"
    # On a busy machine QEMU's timer can be late, which older kernels take for a broken one and panic (setup_IO_APIC).
    " no_timer_check"
)


class GuestDied(ScenarioError):
    """The guest crashed, hung or refused; the machine is gone and the next scenario needs a new one."""


def missing_tools() -> list[str]:
    """What the recorder needs and cannot find, each with its mend; empty when a machine can be started."""
    missing = []
    for name, package in (("qemu-system-x86_64", "qemu-system-x86"), ("gcc", "gcc libc6-dev")):
        try:
            program(name, package)
        except ToolError as error:
            missing.append(str(error))
    return missing


def require_tools() -> None:
    """`ToolError` for the first of `missing_tools`; to be called before anything is fetched."""
    for trouble in missing_tools():
        raise ToolError(trouble)


class Guest:
    """One booted guest; a context manager.

    Parameters
    ----------
    kernel : str, GuestKernel or None
        As `find_kernel` takes it.
    two_nodes : bool
        Two memory nodes.
    gigantic : bool
        One page of 1 GiB.
    five_levels : bool
        Page tables of five levels (CR4.LA57).
    seconds : float
        Time limit of one answer.
    cpu, board : str
        QEMU's CPU model and machine.
    options : str
        More words of the kernel's command line.

    Raises
    ------
    ToolError
        QEMU, gcc or the kernel cannot be had, or the guest does not boot.
    """

    def __init__(
        self,
        kernel: str | GuestKernel | None = None,
        *,
        two_nodes: bool = False,
        gigantic: bool = False,
        five_levels: bool = False,
        seconds: float = 60.0,
        cpu: str = "max",
        board: str = "pc",
        options: str = "",
    ) -> None:
        self.kernel = kernel if isinstance(kernel, GuestKernel) else find_kernel(kernel)
        self.two_nodes, self.gigantic, self.five_levels = two_nodes, gigantic, five_levels
        self.seconds, self.cpu, self.board, self.options = seconds, cpu, board, options
        self.alive = False
        self.has_swap = True
        """False: the kernel has neither zram nor RAM disks, for its modules are missing."""
        self._closers = contextlib.ExitStack()

    def initramfs(self) -> Path:
        """The guest's first files, its init among them."""
        raise NotImplementedError

    # ---- life ----

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop QEMU and remove its files."""
        self.alive = False
        self._closers.close()

    def _boot(self) -> None:
        sizes = [1024, 512] if self.two_nodes else [2816] if self.gigantic else [1536]
        scratch = tempfile.TemporaryDirectory(prefix="ptewalk-vm-", dir=_memory_folder(sum(sizes)))
        folder = self.scratch = Path(self._closers.enter_context(scratch))
        self._console, self._log = folder / "console", folder / "qemu"
        self._serial, monitor = Channel(), Channel()
        self._closers.callback(self._serial.close)
        self._closers.callback(monitor.close)
        ends = [channel.far_end.fileno() for channel in (self._serial, monitor)]
        parts = [folder / f"ram{i}" for i in range(len(sizes))]
        command = self._command_line(sizes, parts, ends)
        with self._log.open("wb") as log:
            self._qemu = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=ends,
                start_new_session=True,  # Ctrl-C is for this process, which then stops QEMU
            )
        self._closers.callback(self._stop)
        for channel in (self._serial, monitor):
            channel.far_end.close()
        self._qmp = Qmp(monitor)
        try:
            self._qmp.start(BOOT_SECONDS)
            self._memory = [np.memmap(part, np.uint64, "r+").reshape(-1, x86.TABLE_ENTRIES) for part in parts]
            for part in parts:
                part.unlink()  # the mappings keep it; nothing is left behind if this process is killed
            place = self._answer_line(BOOT_SECONDS, "boot")
        except (TimeoutError, ConnectionError) as error:
            raise ToolError(str(self._died("the guest did not boot"))) from error
        except GuestDied as error:
            raise ToolError(str(error)) from error
        address, *lacks = place.removeprefix("P ").split()
        self.has_swap = not lacks
        self._box = self._bytes(int(address, 16), MAILBOX_BYTES)
        self.alive = True

    def _command_line(self, sizes: list[int], parts: list[Path], ends: list[int]) -> list[str]:
        """QEMU's command: a memory node of `sizes` MiB in each file of `parts`, serial port and monitor on `ends`."""
        setpriv = shutil.which("setpriv")
        command = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        command += [program("qemu-system-x86_64", "qemu-system-x86"), "-nodefaults", "-no-user-config", "-no-reboot"]
        command += ["-display", "none", "-smp", "1", "-m", f"{sum(sizes)}M"]
        features = (
            ",la57=off" * (not self.five_levels) + ",smap=off" * self.kernel.old
        )  # 3.11 built by a compiler of today fails with SMAP
        command += ["-cpu", self.cpu + features * (self.cpu == "max")]
        command += ["-machine", f"{self.board},accel=tcg" + ("" if self.two_nodes else ",memory-backend=m0")]
        for i, (size, part) in enumerate(zip(sizes, parts, strict=True)):
            command += ["-object", f"memory-backend-file,id=m{i},size={size}M,mem-path={part},share=on"]
            if self.two_nodes:
                command += ["-numa", f"node,nodeid={i},memdev=m{i}" + (",cpus=0" if i == 0 else "")]
        options = " hugepagesz=1G hugepages=1 hugepagesz=2M" if self.gigantic else ""
        options += "" if self.five_levels else " no5lvl"
        command += ["-kernel", str(self.kernel.image), "-initrd", str(self.initramfs())]
        command += ["-append", COMMAND_LINE + options + self.options, "-serial", f"file:{self._console}"]
        command += ["-chardev", f"socket,id=port,fd={ends[0]}", "-serial", "chardev:port"]
        return [*command, "-chardev", f"socket,id=monitor,fd={ends[1]}", "-mon", "chardev=monitor,mode=control"]

    def _stop(self) -> None:
        self._qemu.kill()
        self._qemu.wait()

    def _died(self, what: str) -> GuestDied:
        """The error for a machine that is lost, with the last lines that it said."""
        self.alive = False
        tail = []
        for path in (self._log, self._console):
            with contextlib.suppress(OSError):
                tail += path.read_text("utf-8", "replace").splitlines()
        said = [line.strip() for line in tail if line.strip()][-12:]
        end = "; its last lines: " + " | ".join(said) if said else ""
        return GuestDied(f"{what} (kernel {self.kernel.version}){end}")

    # ---- memory and mailbox ----

    def _row(self, frame: int) -> NDArray[np.uint64]:
        for part in self._memory:
            if frame < len(part):
                return part[frame]
            frame -= len(part)
        raise self._died(f"a page table lies in frame {frame:#x}, beyond the guest's memory")

    def _bytes(self, address: int, count: int) -> NDArray[np.uint8]:
        for part in self._memory:
            size = part.nbytes
            if address + count <= size:
                flat: NDArray[np.uint8] = part.reshape(-1).view(np.uint8)
                return flat[address : address + count]
            address -= size
        raise self._died("the mailbox lies beyond the guest's memory")

    def _put(self, at: int, data: bytes) -> None:
        self._box[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def _words(self, at: int, count: int) -> NDArray[np.int64]:
        return self._box[at : at + 8 * count].view(np.int64).copy()

    def _answer_line(self, seconds: float, what: str) -> str:
        """The agent's line; `GuestDied` for a line that says why not."""
        line = self._serial.line(seconds)
        if line[:1] not in ("K", "P"):
            raise self._died(f"the guest gave up at {what}: {line[2:]}")
        return line

    def _command(self, command: int, operation: int = 0, who: int = 0, payload: bytes | None = None) -> None:
        self._put(AT_COMMAND, struct.pack("<3q", command, operation, who) + (payload or b""))
        self._serial.send(b"c")

    def _ask(self, what: str, command: int, operation: int = 0, who: int = 0, payload: bytes | None = None) -> str:
        if not self.alive:
            raise GuestDied("the guest is not running; start a new LinuxVm")
        try:
            self._command(command, operation, who, payload)
            return self._answer_line(self.seconds, what)
        except TimeoutError as error:
            raise self._died(f"the guest did not answer within {self.seconds:g} s at {what}") from error
        except OSError as error:
            raise self._died(f"the guest died at {what}") from error


def _memory_folder(mebibytes: int) -> str | None:
    """Where the guest's memory lies: shared memory when it has room, else the usual temporary folder."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > (mebibytes + 64) * MEBIBYTE:
        return str(shared)
    return None
