"""Reading the files of /proc of a model machine."""

from __future__ import annotations

import numpy as np

from ptewalk.model import PAGE, Task
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import ProcFs, pid_of

from .api_tasks import AT

BASE = 0x100000000
"""First page of the window."""
SOFT_DIRTY, PRESENT, FRAME = 1 << 55, 1 << 63, (1 << 55) - 1
# include/uapi/linux/kernel-page-flags.h
KPF = dict(
    UPTODATE=3, DIRTY=4, BUDDY=10, MMAP=11, ANON=12, SWAPCACHE=13, SWAPBACKED=14, HEAD=15, TAIL=16, HUGE=17, NOPAGE=20,
    RESERVED=32, KSM=21, THP=22, ZERO_PAGE=24, PGTABLE=26, EXCLUSIVE=34,
)  # fmt: skip


def words(kernel: Kernel, path: str, first: int, count: int, **options: bool) -> list[int]:
    """Words of one of the files of words."""
    data = ProcFs(kernel).open(path, **options).pread(8 * count, 8 * first)
    return np.frombuffer(data, "<u8").tolist()


def text(kernel: Kernel, name: str, who: int = 0) -> str:
    """All of maps or smaps."""
    return ProcFs(kernel).open(f"{pid_of(who)}/{name}").pread(1 << 20, 0).decode()


def bits(*names: str) -> int:
    """A kpageflags word."""
    return sum(1 << KPF[name] for name in names)


def frame_words(task: Task, page: int) -> tuple[int, int]:
    """kpageflags and kpagecount of the frame behind a page."""
    frame = int(task.pagemap(AT + page * PAGE).frame[0])
    assert frame
    [flags], [count] = (words(task.kernel, path, frame, 1) for path in ("kpageflags", "kpagecount"))
    return flags, count
