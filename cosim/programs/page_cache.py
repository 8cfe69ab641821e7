"""Files of the host as the model's files: what is mapped lies in its page cache, and reads and writes see the same."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.nodes import Nodes
from ptewalk.model.kernel import Kernel
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, TABLE_ENTRIES

__all__ = ["Inode", "PageCache"]


@dataclass(eq=False)
class Inode:
    """A regular file that is open or mapped.

    Attributes
    ----------
    handle : int
        The host's descriptor.
    size : int
        Bytes.
    number : str
        Of the model's file; "": it was never mapped.
    writable : bool
        It lies in the scratch folder.
    users : int
        Open files that stand for it.
    """

    handle: int
    size: int
    path: bytes
    number: str = ""
    writable: bool = False
    users: int = 0


class PageCache:
    """The inodes, and what of them is in the model.

    Parameters
    ----------
    kernel : Kernel
    arena : Arena
    nodes : Nodes
        Times of the files that are written.
    """

    def __init__(self, kernel: Kernel, arena: Arena, nodes: Nodes) -> None:
        self._kernel, self._arena, self._nodes = kernel, arena, nodes
        self._inodes: dict[tuple[int, int], Inode] = {}
        self.mapped: dict[str, Inode] = {}
        """Number of the model's file to the inode."""

    def inode(self, handle: int, path: bytes, *, writable: bool) -> Inode:
        """The inode of a host descriptor, which is taken over."""
        found = os.fstat(handle)
        key = found.st_dev, found.st_ino
        inode = self._inodes.get(key)
        if inode is None:
            inode = self._inodes[key] = Inode(handle, found.st_size, path, writable=writable)
            return inode
        if writable and not inode.writable:
            inode.handle, handle, inode.writable = handle, inode.handle, True
        os.close(handle)
        return inode

    def put(self, inode: Inode) -> None:
        """An open file of it was closed."""
        if not inode.users and not inode.number:
            for key, other in list(self._inodes.items()):
                if other is inode:
                    del self._inodes[key]
            os.close(inode.handle)

    def close(self) -> None:
        """Write back what was stored through mappings, and close all."""
        self.write_back()
        for inode in self._inodes.values():
            os.close(inode.handle)
        self._inodes.clear()

    def read(self, inode: Inode, offset: int, count: int) -> bytes:
        """Bytes of a file, as far as it reaches."""
        count = min(count, inode.size - offset)
        if count <= 0:
            return b""
        if inode.number and inode.writable:
            return self._kernel.pread(inode.number, offset, count)
        return os.pread(inode.handle, count, offset)

    def write(self, inode: Inode, offset: int, data: bytes) -> None:
        """Write bytes, which mappings see at once."""
        os.pwrite(inode.handle, data, offset)
        if inode.number:
            self._kernel.pwrite(inode.number, offset, data)
            file = self._kernel.files.open(inode.number)
            for page in range(offset >> PAGE_SHIFT, (offset + len(data) - 1 >> PAGE_SHIFT) + 1):
                self._arena.wrote(file.cache[page])
        inode.size = max(inode.size, offset + len(data))

    def truncate(self, inode: Inode, size: int) -> None:
        """Set a file's length."""
        os.ftruncate(inode.handle, size)
        if inode.number:
            if size < inode.size and size % PAGE_BYTES:
                end = min(inode.size, (size | PAGE_BYTES - 1) + 1)
                self._kernel.pwrite(inode.number, size, bytes(end - size))
            self._kernel.ftruncate(inode.number, -(-size // PAGE_BYTES))
        inode.size = size

    def map(self, inode: Inode) -> str:
        """The number of the model's file, whole in the page cache."""
        if not inode.number:
            inode.number = str(100 + len(self.mapped))
            self.mapped[inode.number] = inode
            pages = -(-inode.size // PAGE_BYTES)
            file = self._kernel.files.create(inode.number, pages)
            for page in range(pages):
                data = os.pread(inode.handle, PAGE_BYTES, page << PAGE_SHIFT)
                frame = self._kernel.files.add_page(file, page)
                row = self._arena.memory.add_frame(frame)
                row[:] = np.frombuffer(data.ljust(PAGE_BYTES, b"\0"), np.uint64, TABLE_ENTRIES)
        return inode.number

    def write_back(self) -> None:
        """Give the host what the program stored through shared mappings."""
        for number, inode in self.mapped.items():
            if inode.writable and inode.size:
                data = self._kernel.pread(number, 0, inode.size)
                if data != os.pread(inode.handle, inode.size, 0):
                    os.pwrite(inode.handle, data, 0)
                    self._nodes.touch(inode.handle)
