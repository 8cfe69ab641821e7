"""The way in: machines, tasks, and accesses in bytes."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from pathlib import Path

import pytest

import ptewalk.model
from ptewalk.model import PAGE, PROFILES, Errno, Fault, Machine, Task
from ptewalk.model.errors import NUMBERS
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import ModelMmu

from .api_tasks import AT, KERNELS, dirty

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
