"""`ptewalk procfs`: the machine that a scenario leaves behind, served as a /proc tree to real programs.

The tree is model/proc/files.py's; fuse_tree.py puts it behind FUSE. With the gateware the scenario runs in the
simulator, every store and load through the gateware; the machine is then handed over whole, tables and data as the
gateware left them, and what is written to clear_refs afterwards is done by software.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.kernel import Kernel

__all__ = ["check_mountpoint", "serve"]

_DEVICE = Path("/dev/fuse")
_HELPERS = ("fusermount3", "fusermount")


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
    if os.geteuid() == 0:
        return
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise ToolError(f"this user cannot open {_DEVICE}: sudo chmod 666 {_DEVICE}, or run as root")
    if not any(map(shutil.which, _HELPERS)):
        raise ToolError(f"who is not root mounts by {_HELPERS[0]}, which was not found: sudo apt-get install fuse3")
    if not os.access(mountpoint, os.W_OK):
        raise ToolError(f"{mountpoint} cannot be written by this user: name a folder that can")


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

    def say(answer: str) -> None:
        os.write(writing, answer.encode())
        os.close(writing)

    try:
        _detach()
        mount(kernel, mountpoint.absolute(), privileged=privileged, ready=lambda: say("mounted"))
    except (ToolError, OSError) as error:
        say(str(error))
    finally:
        os._exit(0)


def _detach() -> None:
    """Leave the terminal: a session of its own, no standard streams."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
