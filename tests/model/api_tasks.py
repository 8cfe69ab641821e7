"""Tasks for the tests of the way in."""

from __future__ import annotations

import numpy as np

from ptewalk.model import PAGE, Task

AT = 0x1000_0000_0000
KERNELS = ["linux-seed", "linux-3.11", "linux-6.1", "linux-6.12"]


def dirty(task: Task, length: int = 8 * PAGE, at: int = AT) -> list[int]:
    return np.flatnonzero(task.pagemap(at, length).soft_dirty).tolist()
