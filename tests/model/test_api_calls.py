"""The way in: system calls."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Errno, Fault, Machine, Task

from .api_tasks import AT, KERNELS, dirty

MODERN = KERNELS[2:]
P, RW, US, A, D, SD = 0x1, 0x2, 0x4, 0x20, 0x40, 0x800


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


def test_execute_only_is_a_key_that_denies_reads(task: Task) -> None:
    """mprotect(PROT_EXEC) alone: arch/x86/mm/pkeys.c:__execute_only_pkey takes the first free key, denies access."""
    task.mprotect(AT, PAGE, "x")
    with pytest.raises(Fault, match=r"^SIGSEGV \(SEGV_PKUERR\)"):
        task.read(AT)
    task.wrpkru(1, 0)
    assert task.read(AT) == b"\1"


def test_zero_is_a_number(task: Task) -> None:
    task.write(AT, 1, value=0)
    assert task.read(AT) == b"\0"
    assert task.mmap(PAGE, offset=0)


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
    for ask in (fd.register, fd.unregister, fd.writeprotect):
        with pytest.raises(Errno, match="EINVAL"):  # fs/userfaultfd.c:validate_range: a length of 0
            ask(AT, 0)
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
