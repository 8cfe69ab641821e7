"""`Task`, a process with a method for each system call, in bytes.

No rule of the kernel stands here: arguments are put into the words of `Kernel`, and its answers into bytes.
"""

from __future__ import annotations

from typing import Final

from ptewalk.model.api import words
from ptewalk.model.api.answers import Fault
from ptewalk.model.api.handles import File, Userfaultfd
from ptewalk.model.api.views import ProcessFiles
from ptewalk.model.api.words import PAGE, Words, page_of, pages_in
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import GIGANTIC_PAGES, HUGE_PAGES
from ptewalk.model.mm import migrate
from ptewalk.model.profiles import ADVICES_6_18
from ptewalk.model.state.frames import by_page
from ptewalk.model.state.machine import Process
from ptewalk.model.x86 import PAGE_SHIFT, Access

_KINDS: Final = ("private", "shared")
_MAP_FLAGS: Final = (
    *("FIXED", "FIXED_NOREPLACE", "GROWSDOWN", "HUGETLB", "HUGE_1GB", "LOCKED", "NORESERVE", "POPULATE"),
)
_KERNEL_FLAGS: Final = ("GROWSDOWN", "LOCKED", "NORESERVE", "POPULATE")
_REMAP_FLAGS: Final = ("MAYMOVE", "FIXED", "DONTUNMAP")
_ADVICES: Final = tuple(sorted(ADVICES_6_18))


class Task(ProcessFiles):
    """A process: `Machine.spawn` and `Task.fork` make one. Once it has ended, every call raises Errno ESRCH.

    Attributes
    ----------
    kernel : Kernel
        The model itself, for who looks closer.
    pid : int
    """

    def __init__(self, tasks: Tasks, process: Process) -> None:
        super().__init__(tasks.kernel, process)
        self._tasks = tasks

    def __repr__(self) -> str:
        return f"<Task {self.pid} under {self.kernel.profile.name}>"

    # User accesses.

    def read(self, at: int, length: int = 1) -> bytes:
        """Load `length` bytes from the address `at`; each page is translated, and faulted in, when it is reached.

        Raises
        ------
        Fault
            SIGSEGV or SIGBUS at the first byte that cannot be had.
        """
        start = words.address("at", at, words.whole("length", length))
        frames = self.kernel.frames
        return b"".join(frames.load(*self._reach(part, Access.READ), n) for part, n in by_page(start, length))

    def write(self, at: int, what: bytes | int = 1, *, value: int = 1) -> None:
        """Store at the address `at`.

        Parameters
        ----------
        what : bytes or int
            The bytes to store; or a length in bytes, from which one byte is stored in each page: at `at`, and then at
            the start of each page.
        value : int
            The byte that is stored when `what` is a length.

        Raises
        ------
        Fault
            SIGSEGV or SIGBUS at the first byte that cannot be had; what lies below it is stored.
        """
        if isinstance(what, str):
            raise TypeError(f"what must be bytes, or a length in bytes, not {what!r}")
        if not 0 <= words.whole("value", value) < 256:
            raise ValueError(f"value must be a byte, 0 to 255, not {value!r}")
        data = what if isinstance(what, bytes | bytearray | memoryview) else None
        length = words.whole("length", what) if data is None else len(data)
        start = words.address("at", at, length)
        for part, n in by_page(start, length):
            stored = bytes([value]) if data is None else bytes(data[part - start : part - start + n])
            self.kernel.frames.store(*self._reach(part, Access.WRITE), stored)

    def _reach(self, at: int, access: Access) -> tuple[int, int]:
        """Frame, and offset in it, of one access, faults handled."""
        (found,) = self.kernel.reach(self.process, [at], access)
        if isinstance(found, str):
            raise Fault(found, at)
        return divmod(found, PAGE)

    # System calls on mappings, in the order of their manual pages' arguments.

    def mmap(
        self,
        length: int,
        prot: str = "rw",
        kind: str = "private",
        flags: Words = (),
        *,
        file: File | None = None,
        offset: int = 0,
        at: int | None = None,
    ) -> int:
        """mmap(2): map `length` bytes; the address (mm/mmap.c:do_mmap).

        Parameters
        ----------
        prot : str
            Letters of r, w and x, or "-" for PROT_NONE.
        kind : str
            "private" or "shared".
        flags : words
            FIXED, FIXED_NOREPLACE, GROWSDOWN, HUGETLB (2 MiB pages, with HUGE_1GB those of 1 GiB), LOCKED, NORESERVE,
            POPULATE.
        file : File or None
            None: anonymous memory.
        offset : int
            First byte of the file that is shown, a multiple of `PAGE`.
        at : int or None
            With FIXED the address; without a hint, which is taken where it is free. None: from the top of the address
            space down, at an address that is the model's own choice: a real process has its program and libraries
            there.

        Raises
        ------
        Errno
            EINVAL: no length, or an address or offset that is not aligned. ENOMEM: no room, or no page in the hugetlb
            pool. EEXIST: FIXED_NOREPLACE over a mapping.
        """
        wanted = words.some_of("a flag of mmap", flags, _MAP_FLAGS, prefix="MAP_")
        letters = words.protection(prot)
        shared = words.one_of("kind", kind, _KINDS, prefix="MAP_") == "shared"
        pages = pages_in(words.whole("length", length))
        model_kind, align = self._model_kind(wanted, shared, file)
        if words.whole("offset", offset) and file is None:
            raise ValueError(f"offset needs a file, and must be 0 without one, not {offset!r}")
        file_page = page_of("offset", offset)
        fixed = bool(wanted & {"FIXED", "FIXED_NOREPLACE"})
        if at is None and fixed:
            raise ValueError("FIXED and FIXED_NOREPLACE need at=, the address to map at")
        if not pages:
            raise Errno("EINVAL", "length must be more than 0")
        place = words.address("at", 0 if at is None else at)
        kernel, process = self.kernel, self.process
        if fixed:
            start = page_of("at", place)
            if "FIXED_NOREPLACE" in wanted and process.mm.areas.in_range(start, start + pages):
                raise Errno("EEXIST", f"something is mapped in the {length} bytes from {place:#x} on")
        else:
            pages = -(-pages // align) * align
            start = kernel.get_unmapped_area(process, place // PAGE, pages, align=align)
        plain = [flag.lower() for flag in _KERNEL_FLAGS if flag in wanted]
        return kernel.mmap(process, start, pages, letters, model_kind, file_page, plain) * PAGE

    def _model_kind(self, flags: set[str], shared: bool, file: File | None) -> tuple[str, int]:
        """What `Kernel.mmap` calls the kind of mapping, and the pages that its start is aligned to."""
        if "HUGE_1GB" in flags and ("HUGETLB" not in flags or shared):
            raise ValueError("HUGE_1GB is for private memory, and needs HUGETLB beside it")
        if "HUGETLB" in flags:
            if file is not None:
                raise ValueError("HUGETLB memory is anonymous: leave file= away")
            if "HUGE_1GB" in flags:
                return "hugetlb1g", GIGANTIC_PAGES
            return "shugetlb" if shared else "hugetlb", HUGE_PAGES
        if file is None:
            return "sanon" if shared else "anon", 1
        if not isinstance(file, File):
            raise TypeError(f"file must be what Machine.file gives, not {file!r}")
        if file.kernel is not self.kernel:
            raise ValueError("file must be of the task's own machine")
        return f"{'s' if shared else 'p'}{file.number}", 1

    def munmap(self, at: int, length: int) -> None:
        """munmap(2): nothing is mapped there any more (mm/mmap.c:do_munmap).

        Raises
        ------
        Errno
            EINVAL: no length, an address that is not aligned, beyond the address space, or a part of a hugetlb page.
        """
        start, pages = self._range(at, length)
        self.kernel.munmap(self.process, start, pages)

    def _range(self, at: int, length: int, what: str = "at") -> tuple[int, int]:
        """First page and number of pages of a range whose start must be aligned."""
        start = words.address(what, at, words.whole("length", length))
        return page_of(what, start), pages_in(length)

    def mprotect(self, at: int, length: int, prot: str) -> None:
        """mprotect(2): give a range other rights (mm/mprotect.c:do_mprotect_pkey).

        Raises
        ------
        Errno
            EINVAL: the address is not aligned. ENOMEM: a hole; what lies before it has its new rights already. EACCES:
            more than the mapping may ever have.
        """
        letters = words.protection(prot)
        start, pages = self._range(at, length)
        self.kernel.mprotect(self.process, start, pages, letters)

    def pkey_mprotect(self, at: int, length: int, prot: str, key: int) -> None:
        """pkey_mprotect(2): as `mprotect`, with a protection key of 0 to 15, which is allocated if it was not.

        Raises
        ------
        Errno
            As `mprotect`; EINVAL too where the kernel or the machine has no keys.
        """
        letters = words.protection(prot)
        if words.whole("key", key) > 15:
            raise ValueError(f"key must be 0 to 15, not {key!r}")
        start, pages = self._range(at, length)
        self.kernel.mprotect(self.process, start, pages, letters, key)

    def wrpkru(self, key: int, rights: int) -> None:
        """WRPKRU: one key's rights, 0: all, 1: no access, 2: no writes, 3: neither."""
        if words.whole("key", key) > 15 or words.whole("rights", rights) > 3:
            raise ValueError(f"key must be 0 to 15 and rights 0 to 3, not {key!r} and {rights!r}")
        self.kernel.wrpkru(self.process, key, rights)

    def mremap(self, at: int, length: int, new_length: int, flags: Words = (), new: int | None = None) -> int:
        """mremap(2): move, grow or shrink a mapping; its address (mm/mremap.c).

        Parameters
        ----------
        flags : words
            MAYMOVE, FIXED, DONTUNMAP.
        new : int or None
            Where to, with FIXED; a hint with DONTUNMAP alone.

        Raises
        ------
        Errno
            EINVAL: an address that is not aligned, flags that do not fit, source and destination overlap. EFAULT: the
            source is no one mapping. ENOMEM: no room.
        """
        wanted = words.some_of("a flag of mremap", flags, _REMAP_FLAGS, prefix="MREMAP_")
        if new is None and "FIXED" in wanted:
            raise ValueError("FIXED needs new=, the address to move to")
        start, pages = self._range(at, length)
        new_pages = pages_in(words.whole("new_length", new_length))
        target = 0
        if new is not None and wanted & {"FIXED", "DONTUNMAP"}:
            target = page_of("new", words.address("new", new))
        return self.kernel.mremap(self.process, start, pages, new_pages, sorted(wanted), target) * PAGE

    def madvise(self, at: int, length: int, advice: str) -> None:
        """madvise(2) (mm/madvise.c:do_madvise).

        Parameters
        ----------
        advice : str
            A name of the manual page without its MADV_; DONTNEED, PAGEOUT, HUGEPAGE and so on.

        Raises
        ------
        Errno
            EINVAL: the address is not aligned, or the kernel does not know the advice or cannot follow it there.
            ENOMEM: a hole; what is mapped was advised. EAGAIN, EBUSY: of COLLAPSE.
        """
        name = words.one_of("advice", advice, _ADVICES, prefix="MADV_")
        start, pages = self._range(at, length)
        self.kernel.madvise(self.process, start, pages, name)

    def mlock(self, at: int, length: int) -> None:
        """mlock(2): fault a range in and keep it (mm/mlock.c:do_mlock); every page that it touches.

        Raises
        ------
        Errno
            ENOMEM: a hole, or a page that cannot be had. EAGAIN.
        """
        self._lock(at, length, lock=True)

    def munlock(self, at: int, length: int) -> None:
        """munlock(2). Raises Errno ENOMEM at a hole."""
        self._lock(at, length, lock=False)

    def _lock(self, at: int, length: int, *, lock: bool) -> None:
        start, pages = words.covering(words.address("at", at, words.whole("length", length)), length)
        self.kernel.mlock(self.process, start, pages, lock=lock)

    def remap_file_pages(self, at: int, length: int, offset: int) -> None:
        """remap_file_pages(2), before 4.0: show the file from byte `offset` on in a part of a shared mapping.

        Raises
        ------
        Errno
            EINVAL: not shared, not one mapping, or not aligned.
        """
        start, pages = self._range(at, length)
        self.kernel.remap_file_pages(self.process, start, pages, page_of("offset", words.whole("offset", offset)))

    def move_pages(self, at: int, length: int, node: int) -> list[int | None]:
        """move_pages(2): move the pages of a range to a NUMA node, 0 or 1 (mm/migrate.c).

        Returns
        -------
        list of int or None
            Per page its node, or the negative number of an error: -2 no page, -13 shared, -14 no memory, -16 part of a
            huge page that is being moved already. None: not told, for a page (a pinned one) could not be moved.

        Raises
        ------
        Errno
            ENODEV: no such node.
        """
        start, pages = words.covering(words.address("at", at, words.whole("length", length)), length)
        _, statuses = self.kernel.move_pages(self.process, start, pages, node)
        return [None if status == migrate.UNWRITTEN else status for status in statuses]

    # Processes.

    def fork(self) -> Task:
        """fork(2): a child with copies of all mappings (kernel/fork.c:dup_mmap)."""
        return self._tasks.fork(self.process)

    def exit(self) -> None:
        """exit(2): all that is mapped goes, and the task with it (mm/mmap.c:exit_mmap)."""
        self.kernel.exit(self.process)

    def setuid(self) -> None:
        """setuid(2) to an ordinary user, who opens no userfaultfd, and from 4.2 on to whom pagemap shows no frames."""
        self.kernel.setuid(self.process)

    # What the kernel does to user memory on a task's behalf.

    def read_into(self, at: int, data: bytes) -> int:
        """read(2) of `data` from some file to the address `at`: the kernel's own stores (copy_to_user).

        Returns
        -------
        int
            Bytes stored.

        Raises
        ------
        Errno
            EFAULT: not one.
        """
        start = words.address("at", at, len(data))
        kernel, process = self.kernel, self.process
        for done, byte in enumerate(bytes(data)):
            place = start + done
            if not kernel.copy_to_user(process, place >> PAGE_SHIFT, place % PAGE, byte):
                if done:
                    return done
                raise Errno("EFAULT", f"nothing can be stored at {at:#x}")
        return len(data)

    def mem_read(self, at: int, length: int = 1) -> bytes:
        """Read /proc/PID/mem: also what the task itself may not read (mm/memory.c:__access_remote_vm).

        Returns
        -------
        bytes
            Fewer than `length` when a page cannot be had.

        Raises
        ------
        Errno
            EIO: the first page cannot be had.
        """
        start = words.address("at", at, words.whole("length", length))
        found = b""
        for part, n in by_page(start, length):
            frame = self._remote(part, write=False, first=part == start)
            if not frame:
                break
            found += self.kernel.frames.load(frame, part % PAGE, n)
        return found

    def mem_write(self, at: int, data: bytes) -> int:
        """Write /proc/PID/mem: private memory is copied where it is read-only (FOLL_FORCE); the bytes that were stored.

        Raises
        ------
        Errno
            EIO: the first page cannot be had.
        """
        start = words.address("at", at, len(data))
        kernel, done = self.kernel, 0
        for part, n in by_page(start, len(data)):
            frame = self._remote(part, write=True, first=part == start)
            if not frame:
                break
            kernel.frames.store(frame, part % PAGE, bytes(data[done : done + n]))
            done += n
        return done

    def _remote(self, at: int, *, write: bool, first: bool) -> int:
        """The frame of a page for /proc/PID/mem; 0 when it cannot be had and is not the first."""
        try:
            return self.kernel.access_remote(self.process, at >> PAGE_SHIFT, write=write)
        except Errno:
            if first:
                raise Errno("EIO", f"{at:#x} cannot be had") from None
            return 0

    def pin(self, at: int, length: int) -> None:
        """Register an io_uring buffer: a device may write to its pages from now on (io_uring/rsrc.c:io_pin_pages).

        Raises
        ------
        Errno
            EFAULT: a page that cannot be written. EINVAL: files that do not fit; 6.1 wants one file or none.
        """
        start, pages = words.covering(words.address("at", at, words.whole("length", length)), length)
        self.kernel.pin(self.process, start, pages)

    def unpin(self, at: int | None = None) -> None:
        """Let the buffer that was registered at the address `at` go; None: all. Raises Errno ENXIO: there is none."""
        self.kernel.unpin(self.process, None if at is None else words.address("at", at) // PAGE)

    def userfaultfd(self, *, asynchronous: bool = False) -> Userfaultfd:
        """userfaultfd(2) for write-protection; one that was open is closed: a task has one.

        Parameters
        ----------
        asynchronous : bool
            With UFFD_FEATURE_WP_ASYNC, of 6.7 and later: a write to a protected page drops the protection. Without, it
            ends in SIGBUS.

        Raises
        ------
        Errno
            ENOSYS: before 4.3. EPERM: an ordinary user. EINVAL: the kernel has no WP_ASYNC.
        """
        self.kernel.uffd_open(self.process, asynchronous=asynchronous)
        return Userfaultfd(self.kernel, self.process)


class Tasks:
    """The tasks of one machine.

    Parameters
    ----------
    kernel : Kernel
        It has booted with process 0, which is the first task.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._all: list[Task] = []

    def living(self) -> list[Task]:
        """The tasks that have not ended, oldest first."""
        return [task for task in self._all if task.lives]

    def spawn(self) -> Task:
        """A new one with nothing mapped."""
        if self._all:
            self.kernel.new_process(len(self._all))
        return self._adopt()

    def fork(self, parent: Process) -> Task:
        """A child of `parent`."""
        self.kernel.fork(parent, len(self._all))
        return self._adopt()

    def _adopt(self) -> Task:
        self._all.append(Task(self, self.kernel.processes[len(self._all)]))
        return self._all[-1]
