"""System calls with a length of 0."""

from __future__ import annotations

import pytest

from ptewalk.model import Machine
from ptewalk.model.errors import Errno

from ..api_tasks import AT, KERNELS


@pytest.mark.parametrize("profile", KERNELS)
def test_of_nothing(profile: str) -> None:
    """mm/mmap.c:do_mmap and mm/mprotect.c:do_mprotect_pkey; less than nothing wraps."""
    kernel = Machine(profile).kernel
    process = kernel.processes[0]
    for pages in (0, -1):
        with pytest.raises(Errno, match="EINVAL"):
            kernel.mmap(process, AT >> 12, pages, "rw", "anon", 0, ())
    kernel.mprotect(process, AT >> 12, 0, "r")
    with pytest.raises(Errno, match="ENOMEM"):
        kernel.mprotect(process, AT >> 12, -1, "r")
