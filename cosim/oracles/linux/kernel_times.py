"""How long a real kernel under QEMU takes to clear soft-dirty, to take the writes that follow, and to tell of them."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.image import GuestKernel, build_agent
from ptewalk.cosim.oracles.linux.program_guest import GuestFile, GuestProgram, ProgramGuest

__all__ = ["MOST_PAGES", "KernelTimes", "kernel_times"]

MOST_PAGES: Final = 1 << 18
"""1 GiB: what the guest's memory has room for."""
_SOURCE: Final = Path(__file__).with_name("timer.c")
_PATH: Final = b"/timer"


class KernelTimes(NamedTuple):
    """Medians of rounds, in seconds by the guest's clock.

    Attributes
    ----------
    version : str
        Of the kernel.
    clear : float
        4 to /proc/self/clear_refs.
    stores : float
        A store to each page behind it, each of which faults.
    pagemap : float
        /proc/self/pagemap of all pages behind the stores.
    """

    version: str
    clear: float
    stores: float
    pagemap: float


def kernel_times(kernel: str | GuestKernel | None, pages: int, rounds: int = 3) -> KernelTimes:
    """Times of `pages` pages of 4 KiB of private memory, all of them written; QEMU translates, it does not virtualise.

    Raises
    ------
    ToolError
        The guest cannot be had, or its kernel does not track: a page stays soft-dirty behind a clear, or is not behind
        a store.
    """
    if not 1 <= pages <= MOST_PAGES:
        raise ToolError(f"the guest's memory has room for 1 to {MOST_PAGES} pages, not {pages}")
    file = GuestFile(_PATH.decode(), 0o100755, build_agent(_SOURCE).read_bytes(), 0)
    arguments = [_PATH, str(pages).encode(), str(rounds).encode()]
    with ProgramGuest(kernel, GuestProgram(_PATH, arguments, [], b"/", [file])) as guest:
        for _ in guest.epochs():
            pass
        output, trouble = guest.output()
        if guest.status or len(output.splitlines()) != rounds:
            said = (trouble or output).decode("utf-8", "replace").strip()
            raise ToolError(f"the guest's timer ended with status {guest.status}: {said}")
        return judged(guest.kernel.version, output.decode(), pages)


def judged(version: str, output: str, pages: int) -> KernelTimes:
    """What timer.c printed: `ToolError` where a round tells of other pages than were written."""
    rows = [[int(word) for word in line.split()] for line in output.splitlines()]
    wrong = [row for row in rows if row[3:] != [0, pages]]
    if wrong:
        left, dirty = wrong[0][3:]
        told = f"{left} pages dirty behind a clear, {dirty} behind {pages} stores"
        raise ToolError(f"kernel {version} does not track: {told}; name one with CONFIG_MEM_SOFT_DIRTY")
    return KernelTimes(version, *(median(column) / 1e9 for column in list(zip(*rows, strict=True))[:3]))
