"""Tasks of one machine, with pages counted from one address and raw entries at hand: `Window`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ptewalk.model import PAGE, Errno, Fault, Machine, Task
from ptewalk.model.api.answers import Leaf
from ptewalk.model.linux import Track

ENDS = {
    "SEGV_MAPERR": "maperr",
    "SEGV_ACCERR": "accerr",
    "SEGV_PKUERR": "pkuerr",
    "BUS_ADRERR": "bus",
    "SI_KERNEL": "accerr",
}


class Window:
    """A machine whose tasks are driven in pages of a window, for rules that are about pages and their raw entries.

    It translates to `Machine` and `Task`, which tests of anything else use as they are.

    Process `who` of a scenario is the task that came with that number. Two notes that only the kernel takes, `watch`
    and `pagemap_fixed`, are options too.
    """

    def __init__(self, profile: str = "linux-6.1", **options: object) -> None:
        options = {"pagemap_v2": True} | options
        noted = {name: options.pop(name) for name in ("watch", "pagemap_fixed") if name in options}
        self.machine = Machine(profile, **options)  # type: ignore[arg-type]
        self.kernel = self.machine.kernel
        for name, value in noted.items():
            setattr(self.kernel, name, value)
        self.tasks = {0: self.machine.spawn()}

    def task(self, who: int = 0) -> Task:
        """The task of process `who`."""
        return self.tasks[who]

    def at(self, page: int) -> int:
        """The address of a page."""
        return (self.kernel.base + page) * PAGE

    def page(self, at: int) -> int:
        """The page of an address."""
        return at // PAGE - self.kernel.base

    def mm(self, who: int = 0):  # type: ignore[no-untyped-def]
        """The address space of a process."""
        return self.task(who).process.mm

    def mmap(
        self,
        page: int,
        n: int,
        prot: str = "rw",
        kind: str = "anon",
        file_page: int = 0,
        flags: Iterable[str] = (),
        who: int = 0,
    ) -> int:
        """Map at a place; `kind` is the scenario format's."""
        words = {"FIXED", *flags}
        shared = kind[0] == "s"
        file = None
        if "hugetlb" in kind:
            words |= {"HUGETLB", "HUGE_1GB"} if kind == "hugetlb1g" else {"HUGETLB"}
        elif kind not in ("anon", "sanon"):
            file = self.machine.file(int(kind[1:]))
        return self.page(
            self.task(who).mmap(
                n * PAGE,
                prot,
                "shared" if shared else "private",
                words,
                file=file,
                offset=file_page * PAGE if file else 0,
                at=self.at(page),
            )
        )

    def write(self, page: int, n: int = 1, who: int = 0, value: int = 7) -> list[int | str]:
        """A store of one byte at offset 8 of each page, whatever became of the one before."""
        return [self._ended(self._store, place, who, value) for place in range(page, page + n)]

    def read(self, page: int, n: int = 1, who: int = 0) -> list[int | str]:
        """As `write`, a load."""
        return [self._ended(self._load, place, who) for place in range(page, page + n)]

    def _store(self, page: int, who: int, value: int) -> int | str:
        self.task(who).write(self.at(page) + 8, bytes([value]))
        return "ok"

    def _load(self, page: int, who: int) -> int | str:
        return self.task(who).read(self.at(page) + 8)[0]

    def _ended(self, access: Callable[..., int | str], *arguments: int) -> int | str:
        try:
            return access(*arguments)
        except Fault as fault:
            return ENDS[fault.code]

    def clear(self, value: str = "4", who: int = 0) -> int:
        return self.task(who).clear_refs(value)

    def mprotect(self, page: int, n: int, prot: str, who: int = 0) -> None:
        self.task(who).mprotect(self.at(page), n * PAGE, prot)

    def munmap(self, page: int, n: int, who: int = 0) -> None:
        self.task(who).munmap(self.at(page), n * PAGE)

    def mremap(
        self,
        page: int,
        n: int,
        new_n: int,
        new_page: int = 0,
        flags: Iterable[str] = ("MAYMOVE", "FIXED"),
        who: int = 0,
    ) -> int:
        return self.page(self.task(who).mremap(self.at(page), n * PAGE, new_n * PAGE, list(flags), self.at(new_page)))

    def madvise(self, page: int, n: int, advice: str, who: int = 0) -> None:
        self.task(who).madvise(self.at(page), n * PAGE, advice)

    def fork(self, child: int = 1, who: int = 0) -> None:
        """The child is process `child`, which comes next."""
        self.tasks[child] = self.task(who).fork()
        assert self.tasks[child].process.who == child

    def mem_write(self, page: int, n: int = 1, who: int = 0) -> list[int | str]:
        """A byte at offset 8 of each page through /proc/PID/mem."""
        values: list[int | str] = []
        for place in range(page, page + n):
            try:
                self.task(who).mem_write(self.at(place) + 8, b"\x09")
                values.append("ok")
            except Errno as error:
                assert error.name == "EIO"
                values.append("e5")
        return values

    def leaf(self, page: int, level: int, who: int = 0) -> int:
        """The raw entry of a level that maps a page; 0 when there is none."""
        return next((leaf.entry for leaf in self._leaves(page, who) if leaf.level == level), 0)

    def _leaves(self, page: int, who: int) -> list[Leaf]:
        return self.task(who).entries(self.at(page))

    def pte(self, page: int, who: int = 0) -> int:
        """Raw level-1 entry without its frame."""
        return self.leaf(page, 1, who) & ~0x000F_FFFF_FFFF_F000

    def pmd(self, page: int, who: int = 0) -> int:
        """Raw level-2 leaf without its frame."""
        return self.leaf(page, 2, who) & ~0x000F_FFFF_FFE0_0000

    def frame(self, page: int, who: int = 0) -> int:
        """Frame of a small page."""
        return int(self.kernel.entries.pte_pfn(self.leaf(page, 1, who)))

    def words(self, page: int, n: int, who: int = 0) -> list[int]:
        """Pagemap words."""
        return self.task(who).pagemap(self.at(page), n * PAGE).words.tolist()

    def dirty(self, page: int, n: int, who: int = 0) -> list[int]:
        """The pages of a range whose bit 55 is set."""
        return [page + i for i, word in enumerate(self.words(page, n, who)) if word >> 55 & 1]

    def areas(self, who: int = 0) -> list[tuple[int, int]]:
        """(page, pages) of each area."""
        return [(vma.start - self.kernel.base, vma.end - vma.start) for vma in self.mm(who).areas]

    def error(self, call: Callable[..., object], *arguments: object, **named: object) -> str | None:
        """The errno of a call; None when it succeeds."""
        try:
            call(*arguments, **named)
        except Errno as error:
            return error.name
        return None


@pytest.fixture
def machine() -> type[Window]:
    """The class: call it with a profile and a machine's options."""
    return Window


@pytest.fixture
def tracks() -> tuple[Track, ...]:
    """Every way of tracking."""
    return (Track.OFF, Track.FAULT, Track.NATIVE)


@pytest.fixture
def task() -> Task:
    """A task with eight pages of memory, written and cleared, and one read-only page behind them, under 6.12."""
    at = 0x1000_0000_0000
    task = Machine().spawn()
    task.mmap(8 * PAGE, "rw", at=at)
    task.write(at, 8 * PAGE)
    task.mmap(PAGE, "r", at=at + 8 * PAGE)
    task.clear_refs(4)
    return task
