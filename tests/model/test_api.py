"""The way in: what each method answers, and that every wrong use gets one line that says the mend."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ptewalk.model
from ptewalk.model import PAGE, PROFILES, Errno, Fault, Machine, Task
from ptewalk.model.errors import NUMBERS
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import ModelMmu

AT = 0x1000_0000_0000
KERNELS = ["linux-seed", "linux-3.11", "linux-6.1", "linux-6.12"]
MODERN = KERNELS[2:]
P, RW, US, A, D, SD = 0x1, 0x2, 0x4, 0x20, 0x40, 0x800


@pytest.fixture
def task() -> Task:
    """A task with eight pages of memory, written and cleared, and one read-only page behind them, under 6.12."""
    task = Machine().spawn()
    task.mmap(8 * PAGE, "rw", at=AT)
    task.write(AT, 8 * PAGE)
    task.mmap(PAGE, "r", at=AT + 8 * PAGE)
    task.clear_refs(4)
    return task


def dirty(task: Task, length: int = 8 * PAGE, at: int = AT) -> list[int]:
    return np.flatnonzero(task.pagemap(at, length).soft_dirty).tolist()


# Importing.


def test_facts_load_nothing() -> None:
    """The gateware shares x86 and linux: they bring no numpy and no other part of the model."""
    code = "import sys, ptewalk.model.x86, ptewalk.model.linux; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name for name in done.stdout.split() if name.split(".")[0] in ("ptewalk", "numpy")]
    assert sorted(loaded) == ["ptewalk", "ptewalk.model", "ptewalk.model.linux", "ptewalk.model.x86"]


def test_the_stub_names_what_the_package_has() -> None:
    stub = ast.parse(Path(ptewalk.model.__file__).with_suffix(".pyi").read_text())
    homes = {a.asname: n.module for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert sorted(homes) == sorted(ptewalk.model.__all__) == sorted(set(ptewalk.model.__all__))
    for name, module in homes.items():
        assert module is not None
        found = getattr(ptewalk.model, name)
        assert found is getattr(sys.modules[module], name)
    with pytest.raises(AttributeError, match="module 'ptewalk.model' has no attribute 'Machines'"):
        _ = ptewalk.model.Machines  # type: ignore[attr-defined]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="optional: the numbers of another system differ")
def test_numbers_of_errors() -> None:
    assert {name: getattr(errno, name) for name in NUMBERS} == NUMBERS
    caught = Errno("ENOMEM", "no room")
    assert (caught.name, caught.number, str(caught)) == ("ENOMEM", 12, "ENOMEM (12): no room")
    assert str(Errno("EBADF")) == "EBADF (9)"


# The machine.


def test_the_three_lines_of_a_comparison() -> None:
    """VM_SOFTDIRTY came with 3.12: a new mapping is dirty as a whole from then on."""
    found = {}
    for profile in KERNELS:
        task = Machine(profile, pagemap_v2=True).spawn()
        at = task.mmap(4 * PAGE)
        found[profile] = dirty(task, 4 * PAGE, at)
    assert found == {"linux-seed": [], "linux-3.11": [], "linux-6.1": [0, 1, 2, 3], "linux-6.12": [0, 1, 2, 3]}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("track", ["off", "fault", "native", Track.NATIVE])
@pytest.mark.parametrize("levels", [4, 5])
def test_every_machine_finds_the_page_that_was_written(profile: str, track: str | Track, levels: int) -> None:
    task = Machine(profile, track=track, levels=levels).spawn()
    at = task.mmap(8 * PAGE, "rw")
    task.write(at, 8 * PAGE)
    task.clear_refs()
    task.write(at + 3 * PAGE)
    assert dirty(task, at=at) == [3]
    assert task.process.mm.tables.levels == levels


def test_without_soft_dirty_nothing_is_marked() -> None:
    task = Machine("linux-3.11", soft_dirty=False, pagemap_v2=True).spawn()
    task.mmap(2 * PAGE, at=AT)
    task.write(AT)
    assert dirty(task, 2 * PAGE) == [] and task.pagemap(AT).present.tolist() == [True]


def test_exact_tells_what_changed() -> None:
    """6.12 calls all of a clean area dirty once a new mapping has merged with it."""
    task = Machine("linux-6.12", exact=True).spawn()
    task.mmap(4 * PAGE, at=AT)
    task.clear_refs()
    task.mmap(4 * PAGE, at=AT + 4 * PAGE)
    assert dirty(task) == [4, 5, 6, 7]
    plain = Machine("linux-6.12").spawn()
    plain.mmap(4 * PAGE, at=AT)
    plain.clear_refs()
    plain.mmap(4 * PAGE, at=AT + 4 * PAGE)
    assert dirty(plain) == list(range(8))


def test_another_mmu_sees_every_access() -> None:
    seen: list[int] = []

    class Watching(ModelMmu):
        def run(self, state, requests):  # type: ignore[no-untyped-def]
            seen.extend(request.linear for request in requests)
            return super().run(state, requests)

    def made(memory: SparseMemory) -> Watching:
        return Watching(memory)

    task = Machine(mmu=made).spawn()
    task.mmap(2 * PAGE, at=AT)
    task.write(AT + 0xFFF, b"ab")
    assert set(seen) == {AT + 0xFFF, AT + 0x1000}


def test_tasks_come_and_go() -> None:
    machine = Machine()
    one, two = machine.spawn(), machine.spawn()
    child = one.fork()
    assert [task.pid for task in machine.tasks] == [1, 2, 3]
    two.exit()
    assert machine.tasks == [one, child] and not two.lives
    with pytest.raises(Errno, match=r"^ESRCH \(3\): task 2 has ended$"):
        two.read(AT)
    assert machine.spawn().pid == 4, "a number is not used again"


# User accesses.


def test_bytes_cross_pages(task: Task) -> None:
    data = bytes(range(256)) * 33
    task.write(AT + PAGE - 100, data)
    assert task.read(AT + PAGE - 100, len(data)) == data
    assert task.read(AT + PAGE - 101, 2) == b"\0\0" and task.read(AT + PAGE - 100 + len(data)) == b"\0"
    assert dirty(task) == [0, 1, 2, 3]


def test_a_length_stores_once_in_each_page(task: Task) -> None:
    task.write(AT + 100, 2 * PAGE, value=9)
    touched = task.read(AT, 4 * PAGE)
    assert [i for i, byte in enumerate(touched) if byte == 9] == [100, PAGE, 2 * PAGE]
    assert dirty(task) == [0, 1, 2]


@pytest.mark.parametrize("profile", PROFILES)
def test_beyond_the_address_space(profile: str) -> None:
    """4 levels: 2**47 is not canonical, #GP and SI_KERNEL; with five it is user memory like any other."""
    for levels, code in ((4, "SI_KERNEL"), (5, "SEGV_MAPERR")):
        task = Machine(profile, levels=levels).spawn()
        for access in (task.read, task.write):
            with pytest.raises(Fault, match=rf"^SIGSEGV \({code}\) at 0x800000000000$"):
                access(1 << 47)
            with pytest.raises(Fault, match=r"^SIGSEGV \(SI_KERNEL\) at 0x8000000000000000$"):
                access(1 << 63)


def test_nothing_is_nothing(task: Task) -> None:
    assert task.read(AT, 0) == b"" and task.read_into(AT, b"") == 0
    task.write(AT, b"")
    task.write(AT, 0)
    assert dirty(task) == []


def test_a_fault_names_signal_code_and_byte(task: Task) -> None:
    with pytest.raises(Fault) as caught:
        task.write(AT + 8 * PAGE - 2, b"four")
    fault = caught.value
    assert (fault.signal, fault.code, fault.address) == ("SIGSEGV", "SEGV_ACCERR", AT + 8 * PAGE)
    assert str(fault) == "SIGSEGV (SEGV_ACCERR) at 0x100000008000"
    assert task.read(AT + 8 * PAGE - 2, 2) == b"fo", "what lies below is stored"
    with pytest.raises(Fault, match=r"^SIGSEGV \(SEGV_MAPERR\) at 0x100000009001$"):
        task.read(AT + 9 * PAGE + 1)
    task.pkey_mprotect(AT, PAGE, "rw", 1)
    task.wrpkru(1, 2)
    assert task.read(AT) == b"\1"
    with pytest.raises(Fault, match=r"^SIGSEGV \(SEGV_PKUERR\)"):
        task.write(AT)


# System calls.


def test_mmap_finds_room(task: Task) -> None:
    one, two = task.mmap(PAGE), task.mmap(3 * PAGE + 1)
    assert two + 4 * PAGE == one and one % PAGE == 0
    assert task.mmap(PAGE, at=AT + 20 * PAGE + 5) == AT + 20 * PAGE, "a hint is rounded down"
    assert task.mmap(PAGE, "r", at=AT) not in range(AT, AT + 9 * PAGE), "a hint that is taken is no help"
    assert task.mmap(PAGE, "rw", flags="FIXED", at=AT) == AT and task.read(AT) == b"\0"
    huge = task.mmap(1, flags="MAP_HUGETLB")
    assert huge % (512 * PAGE) == 0
    task.write(huge)
    assert [(leaf.at, leaf.level) for leaf in task.entries(huge + 5 * PAGE)] == [(huge, 2)]
    giant = task.mmap(1, flags=["hugetlb", "huge_1gb"])
    assert giant % (1 << 30) == 0


def test_flags_of_mmap_do_what_they_say(task: Task) -> None:
    populated = task.mmap(2 * PAGE, flags="POPULATE")
    assert task.pagemap(populated, 2 * PAGE).present.all()
    assert "lo" in flags_of(task, task.mmap(PAGE, flags="LOCKED", at=AT + 100 * PAGE))
    assert "nr" in flags_of(task, task.mmap(PAGE, flags="NORESERVE", at=AT + 200 * PAGE))
    assert "gd" in flags_of(task, task.mmap(PAGE, flags="GROWSDOWN", at=AT + 2000 * PAGE))
    assert {"rd", "sh"} <= flags_of(task, task.mmap(PAGE, "r", "shared", at=AT + 300 * PAGE))


def flags_of(task: Task, at: int) -> set[str]:
    """VmFlags of the area that begins at `at`."""
    text = task.smaps()
    return set(text[text.index(f"{at:08x}-") :].split("VmFlags: ")[1].splitlines()[0].split())


def test_shared_memory_and_files_are_seen_by_all(task: Task) -> None:
    machine = Machine()
    one = machine.spawn()
    log = machine.file(0)
    at = one.mmap(2 * PAGE, "rw", "shared", file=log, offset=PAGE)
    child = one.fork()
    child.write(at + 5, b"hello")
    assert one.read(at + 5, 5) == log.pread(5, PAGE + 5) == b"hello"
    assert log.pwrite(b"x" * PAGE, PAGE - 1) == PAGE and one.read(at + 4, 4) == b"xxxx"
    assert log.length == 8192 * PAGE
    log.ftruncate(PAGE)
    assert log.length == PAGE and log.pread(10, PAGE - 1) == b"x" and log.pread(10, PAGE) == b""
    with pytest.raises(Fault, match=r"^SIGBUS \(BUS_ADRERR\) at 0x"):
        one.read(at)


def test_fsync_wants_to_see_the_next_write() -> None:
    machine = Machine("linux-6.1")
    task, disk = machine.spawn(), machine.file(4)
    at = task.mmap(PAGE, "rw", "shared", file=disk)
    task.write(at)
    assert task.entries(at)[0].entry & (RW | D) == RW | D
    disk.fsync()
    assert task.entries(at)[0].entry & (RW | D) == 0


def test_unmapping_protecting_moving(task: Task) -> None:
    task.munmap(AT + PAGE, 1)
    assert not task.pagemap(AT, 2 * PAGE).present[1]
    task.mprotect(AT + 2 * PAGE, PAGE + 1, "r-")
    assert [line.split()[1] for line in task.maps().splitlines()] == ["rw-p", "r--p", "rw-p", "r--p"]
    assert task.mremap(AT + 4 * PAGE, 4 * PAGE, 4 * PAGE, "MAYMOVE|FIXED", AT + 64 * PAGE) == AT + 64 * PAGE
    assert dirty(task, at=AT + 64 * PAGE) == [0, 1, 2, 3]
    away = task.mremap(AT + 64 * PAGE, 4 * PAGE, 4 * PAGE, ("mremap_maymove", "DONTUNMAP"), AT + 80 * PAGE)
    assert away == AT + 80 * PAGE and task.read(AT + 64 * PAGE) == b"\0" and task.read(away) == b"\1"
    assert task.mremap(away, 4 * PAGE, 2 * PAGE) == away


def test_locks_take_every_page_that_they_touch() -> None:
    task = Machine().spawn()
    task.mmap(4 * PAGE, at=AT)
    task.mlock(AT + PAGE - 1, 2)
    assert task.pagemap(AT, 4 * PAGE).present.tolist() == [True, True, False, False]
    task.munlock(AT, PAGE)
    assert "lo" not in flags_of(task, AT) and "lo" in flags_of(task, AT + PAGE)


def test_advice_swap_and_swapoff(task: Task) -> None:
    task.madvise(AT, 2 * PAGE, "MADV_PAGEOUT")
    seen = task.pagemap(AT, 3 * PAGE)
    assert seen.swapped.tolist() == [True, True, False] and seen.frame[:2].tolist() == [0, 0]
    assert [leaf.entry & P for leaf in task.entries(AT, 3 * PAGE)] == [0, 0, 1]
    assert task.read(AT) == b"\1"
    machine = Machine()
    other = machine.spawn()
    other.mmap(PAGE, at=AT)
    other.write(AT)
    other.madvise(AT, PAGE, "pageout")
    machine.swapoff()
    assert other.pagemap(AT).present.all() and not other.pagemap(AT).swapped.any()


def test_ksm_merges_what_is_equal() -> None:
    machine = Machine()
    task = machine.spawn()
    task.mmap(3 * PAGE, at=AT)
    task.madvise(AT, 3 * PAGE, "MERGEABLE")
    for page in range(3):
        task.write(AT + page * PAGE, bytes([7]) * PAGE)
    machine.ksm_scan()
    assert len(set(task.pagemap(AT, 3 * PAGE).frame.tolist())) == 1
    assert not task.pagemap(AT, 3 * PAGE).exclusive.any()


def test_fork_shares_until_one_writes(task: Task) -> None:
    child = task.fork()
    assert child.pagemap(AT).frame == task.pagemap(AT).frame
    child.write(AT, b"child")
    assert (task.read(AT, 2), child.read(AT, 5)) == (b"\1\0", b"child")
    assert child.pagemap(AT).frame != task.pagemap(AT).frame


def test_an_ordinary_user_sees_no_frames() -> None:
    machine = Machine()
    root = machine.spawn()
    root.mmap(PAGE, at=AT)
    root.write(AT)
    user = root.fork()
    user.setuid()
    assert root.pagemap(AT).frame[0] and user.pagemap(AT).frame[0] == 0 and user.pagemap(AT).present[0]
    with pytest.raises(Errno, match=r"^EACCES \(13\)$"):
        root.clear_refs(4, writer=user)
    assert user.clear_refs("4\n", writer=root) == 2
    with pytest.raises(Errno, match=r"^EPERM \(1\)$"):
        user.userfaultfd()


def test_the_kernels_own_accesses(task: Task) -> None:
    task.mprotect(AT, 2 * PAGE, "r")
    assert task.mem_write(AT + PAGE - 2, b"forced") == 6
    assert task.mem_read(AT + PAGE - 2, 6) == task.read(AT + PAGE - 2, 6) == b"forced"
    assert dirty(task) == [0, 1]
    assert len(task.mem_read(AT + 9 * PAGE - 3, 10)) == 3
    with pytest.raises(Errno, match=r"^EIO \(5\): 0x100000009000 cannot be had$"):
        task.mem_read(AT + 9 * PAGE)
    assert task.read_into(AT + 8 * PAGE - 3, b"abcdef") == 3, "the next page is read-only"
    with pytest.raises(Errno, match=r"^EFAULT \(14\): nothing can be stored at 0x100000008000$"):
        task.read_into(AT + 8 * PAGE, b"abc")
    assert dirty(task) == [0, 1, 7]


def test_pinned_pages_stay_dirty(task: Task) -> None:
    task.pin(AT + 1, PAGE)
    task.write(AT, 3 * PAGE)
    task.clear_refs()
    assert dirty(task) == [0, 1], "a device may write to them"
    assert task.move_pages(AT, 3 * PAGE, 1) == [None, None, None], "a pinned page cannot be moved"
    task.unpin(AT + 1)
    task.clear_refs()
    assert dirty(task) == []
    with pytest.raises(Errno, match=r"^ENXIO \(6\)$"):
        task.unpin(AT)
    task.pin(AT, PAGE)
    task.pin(AT + PAGE, PAGE)
    task.unpin()
    with pytest.raises(Errno, match=r"^ENXIO \(6\)$"):
        task.unpin()


@pytest.mark.parametrize("profile", MODERN)
def test_userfaultfd_stops_a_write(profile: str) -> None:
    task = Machine(profile).spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 4 * PAGE)
    fd = task.userfaultfd()
    fd.register(AT, 4 * PAGE)
    fd.writeprotect(AT, 2 * PAGE)
    assert task.pagemap(AT, 4 * PAGE).uffd_wp.tolist() == [True, True, False, False]
    with pytest.raises(Fault, match="SIGBUS"):
        task.write(AT)
    fd.writeprotect(AT, PAGE, protect=False)
    task.write(AT)
    fd.unregister(AT, 4 * PAGE)
    task.write(AT + PAGE)
    task.userfaultfd()
    with pytest.raises(Errno, match=r"^EBADF \(9\): the task has opened another userfaultfd, which closed this one$"):
        fd.register(AT, 4 * PAGE)


def test_scan_finds_and_protects() -> None:
    task = Machine().spawn()
    task.mmap(8 * PAGE, at=AT)
    task.write(AT, 8 * PAGE)
    fd = task.userfaultfd(asynchronous=True)
    fd.register(AT, 8 * PAGE)
    fd.writeprotect(AT, 8 * PAGE)
    task.write(AT + 2 * PAGE, 2 * PAGE)
    found = task.pagemap_scan(
        AT, 8 * PAGE, "WP_MATCHING PM_SCAN_CHECK_WPASYNC", category_mask="WRITTEN", return_mask="PAGE_IS_WRITTEN"
    )
    assert found.regions == [(AT + 2 * PAGE, AT + 4 * PAGE, frozenset({"WRITTEN"}))]
    assert found.walk_end == AT + 8 * PAGE
    assert task.pagemap_scan(AT, 8 * PAGE, category_mask="WRITTEN").regions == []
    assert task.pagemap_scan(AT, 8 * PAGE, category_mask="PRESENT", max_pages=3).walk_end == AT + 3 * PAGE
    assert task.pagemap_scan(AT, 8 * PAGE, vec_len=0).regions == []
    old = Machine("linux-6.1").spawn()
    with pytest.raises(Errno, match=r"^ENOTTY \(25\)$"):
        old.pagemap_scan(AT, PAGE)


def test_remap_file_pages_of_old() -> None:
    machine = Machine("linux-3.11")
    task, file = machine.spawn(), machine.file(0)
    file.pwrite(b"seven", 7 * PAGE)
    task.mmap(4 * PAGE, "rw", "shared", file=file, at=AT)
    task.remap_file_pages(AT + PAGE, PAGE, 7 * PAGE)
    assert task.read(AT + PAGE, 5) == b"seven"


def test_the_first_pagemap_of_3_11_has_no_soft_dirty() -> None:
    task = Machine("linux-3.11").spawn()
    task.mmap(PAGE, at=AT)
    task.write(AT)
    first = task.pagemap(AT)
    assert int(first.words[0]) >> 55 & 0x3F == 12, "the page shift"
    assert not first.soft_dirty.any() and not first.uffd_wp.any() and not first.exclusive.any()
    assert first.present.all() and first.frame[0] and repr(first).startswith("<Pagemap of 1 pages: 0x86")
    task.clear_refs(4)
    task.write(AT)
    assert task.pagemap(AT).soft_dirty.all()


def test_pagemap_takes_every_page_that_the_range_touches(task: Task) -> None:
    assert len(task.pagemap(AT + PAGE - 1, 2)) == 2 and len(task.pagemap(AT, 0)) == 0
    shared = task.mmap(PAGE, "rw", "shared")
    task.write(shared)
    assert task.pagemap(shared).file.all() and not task.pagemap(AT).file.any()


def test_files_of_proc(task: Task) -> None:
    machine = Machine()
    machine.spawn().mmap(PAGE, at=AT)
    assert machine.proc.open("1/maps").pread(100, 0).startswith(b"100000000000-100000001000 rw-p")


# Wrong uses.


WRONG: list[tuple[Callable[[Task], object], type[Exception], str]] = [
    (
        lambda t: Machine("linux-6.13"),
        ValueError,
        f"profile must be one of {', '.join(PROFILES)}, exact, not 'linux-6.13'",
    ),
    (lambda t: Machine(track="nativ"), ValueError, "track must be one of off, fault, native, not 'nativ'"),
    (lambda t: Machine(levels=6), ValueError, "levels must be 4 or 5, not 6"),
    (lambda t: t.mmap(PAGE, "rw", "hared"), ValueError, "kind must be one of private, shared, not 'hared'"),
    (lambda t: t.mmap(PAGE, "rw", "anonymous"), ValueError, "kind must be one of private, shared, not 'anonymous'"),
    (
        lambda t: t.mmap(PAGE, flags="POPULTE"),
        ValueError,
        "a flag of mmap must be one of FIXED, FIXED_NOREPLACE, GROWSDOWN, HUGETLB, HUGE_1GB, LOCKED, NORESERVE, "
        "POPULATE, not 'POPULTE'",
    ),
    (
        lambda t: t.mremap(AT, PAGE, PAGE, ["maymove", 7]),
        ValueError,
        "a flag of mremap must be one of MAYMOVE, FIXED, DONTUNMAP, not 7",
    ),
    (
        lambda t: t.madvise(AT, PAGE, "DONTNED"),
        ValueError,
        "advice must be one of COLD, COLLAPSE, DODUMP, DOFORK, DONTDUMP, DONTFORK, DONTNEED, DONTNEED_LOCKED, FREE, "
        "HUGEPAGE, KEEPONFORK, MERGEABLE, NOHUGEPAGE, NORMAL, PAGEOUT, POPULATE_READ, POPULATE_WRITE, RANDOM, REMOVE, "
        "SEQUENTIAL, SOFT_OFFLINE, UNMERGEABLE, WILLNEED, WIPEONFORK, not 'DONTNED'",
    ),
    (
        lambda t: t.mprotect(AT, PAGE, "rq"),
        ValueError,
        "prot must be made of r, w and x, or be \"-\" for none, not 'rq'",
    ),
    (lambda t: t.mmap(PAGE, 3), ValueError, 'prot must be made of r, w and x, or be "-" for none, not 3'),  # type: ignore[arg-type]
    (lambda t: t.munmap(AT + 1, PAGE), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000001"),
    (lambda t: t.mprotect(AT + 8, PAGE, "r"), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000008"),
    (lambda t: t.madvise(AT + 8, 1, "COLD"), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000008"),
    (
        lambda t: t.mremap(AT, PAGE, PAGE, "MAYMOVE FIXED", AT + 5),
        Errno,
        "EINVAL (22): new must be a multiple of 4096, not 0x100000000005",
    ),
    (
        lambda t: t.mmap(PAGE, flags="FIXED", at=AT + 5),
        Errno,
        "EINVAL (22): at must be a multiple of 4096, not 0x100000000005",
    ),
    (
        lambda t: t.userfaultfd().register(AT, 100),
        Errno,
        "EINVAL (22): length must be a multiple of 4096, not 0x64",
    ),
    (lambda t: t.mmap(0), Errno, "EINVAL (22): length must be more than 0"),
    (lambda t: t.mmap(-PAGE), ValueError, "length must be 0 or more, not -4096"),
    (lambda t: t.munmap(AT, -1), ValueError, "length must be 0 or more, not -1"),
    (lambda t: t.read(AT, 1.5), TypeError, "length must be a whole number, not 1.5"),  # type: ignore[arg-type]
    (lambda t: t.write(AT, True), TypeError, "length must be a whole number, not True"),
    (lambda t: t.read(-1), ValueError, "at must be 0 or more, not -1"),
    (
        lambda t: t.write((1 << 64) - 1, b"ab"),
        ValueError,
        "at and its length must lie below 2**64, not 0xffffffffffffffff and 2",
    ),
    (lambda t: t.write(AT, "text"), TypeError, "what must be bytes, or a length in bytes, not 'text'"),  # type: ignore[arg-type]
    (lambda t: t.write(AT, PAGE, value=256), ValueError, "value must be a byte, 0 to 255, not 256"),
    (lambda t: t.mmap(PAGE, flags="FIXED"), ValueError, "FIXED and FIXED_NOREPLACE need at=, the address to map at"),
    (lambda t: t.mremap(AT, 1, 1, "MAYMOVE|FIXED"), ValueError, "FIXED needs new=, the address to move to"),
    (
        lambda t: t.mmap(PAGE, flags="FIXED_NOREPLACE", at=AT),
        Errno,
        "EEXIST (17): something is mapped in the 4096 bytes from 0x100000000000 on",
    ),
    (lambda t: t.mmap(PAGE, offset=5), ValueError, "offset needs a file, and must be 0 without one, not 5"),
    (lambda t: t.mmap(PAGE, file="log"), TypeError, "file must be what Machine.file gives, not 'log'"),  # type: ignore[arg-type]
    (lambda t: t.mmap(PAGE, file=Machine().file(0)), ValueError, "file must be of the task's own machine"),
    (
        lambda t: t.mmap(PAGE, "rw", "shared", "HUGETLB HUGE_1GB"),
        ValueError,
        "HUGE_1GB is for private memory, and needs HUGETLB beside it",
    ),
    (
        lambda t: t.mmap(PAGE, flags="HUGETLB", file=Machine().file(0)),
        ValueError,
        "HUGETLB memory is anonymous: leave file= away",
    ),
    (lambda t: Machine().file(10), ValueError, "number of a file must be 0 to 9, not 10"),
    (lambda t: Machine().file("abc"), TypeError, "number must be a whole number, not 'abc'"),  # type: ignore[arg-type]
    (lambda t: Machine().file(0).ftruncate(5), ValueError, "length of a file must be a multiple of 4096, not 5"),
    (lambda t: t.pkey_mprotect(AT, PAGE, "r", 16), ValueError, "key must be 0 to 15, not 16"),
    (lambda t: t.wrpkru(3, 4), ValueError, "key must be 0 to 15 and rights 0 to 3, not 3 and 4"),
    (
        lambda t: t.pagemap_scan(AT, PAGE, category_mask="DIRTY"),
        ValueError,
        "category_mask must be one of WPALLOWED, WRITTEN, FILE, PRESENT, SWAPPED, PFNZERO, HUGE, SOFT_DIRTY, "
        "not 'DIRTY'",
    ),
    (lambda t: t.clear_refs("four"), Errno, "EINVAL (22)"),
    (lambda t: t.move_pages(AT, PAGE, 2), Errno, "ENODEV (19)"),
    (lambda t: t.mmap(1 << 60), Errno, "ENOMEM (12)"),
    (lambda t: t.write((1 << 46) + 7), Fault, "SIGSEGV (SEGV_MAPERR) at 0x400000000007"),
]


@pytest.mark.parametrize(("use", "kind", "text"), WRONG, ids=[text[:60] for _, _, text in WRONG])
def test_a_wrong_use_gets_one_line(task: Task, use: Callable[[Task], object], kind: type[Exception], text: str) -> None:
    before = task.maps(), task.pagemap(AT, 16 * PAGE).words.tolist()
    with pytest.raises(kind) as caught:
        use(task)
    assert str(caught.value) == text and type(caught.value) is kind
    assert (task.maps(), task.pagemap(AT, 16 * PAGE).words.tolist()) == before, "and changes nothing"
