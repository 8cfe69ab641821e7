"""What the modelled kernel answers when a system call fails."""

from __future__ import annotations


class Errno(Exception):
    """A system call fails with the error `name`, such as EINVAL."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
