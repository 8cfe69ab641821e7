"""`ptewalk procfs`: real programs read and write the mounted tree."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.cli import main as cli
from ptewalk.cosim.procfs import fuse_tree, serve
from ptewalk.cosim.procfs.fuse_tree import ProcTree
from ptewalk.cosim.procfs.serve import check_mountpoint

PTEWALK = Path(sys.executable).with_name("ptewalk")
BASE = 0x100000000
"""First page of the window."""
SOFT_DIRTY, PRESENT, FRAME = 1 << 55, 1 << 63, (1 << 55) - 1
OPS: list[dict[str, Any]] = [
    {"who": 0, "op": "mmap", "page": 0, "n": 16, "prot": "rw", "kind": "anon", "file_page": 0, "flags": []},
    {"who": 0, "op": "write", "page": 0, "n": 16},
    {"who": 0, "op": "mmap", "page": 32, "n": 8, "prot": "rw", "kind": "s1", "file_page": 0, "flags": []},
    {"who": 0, "op": "write", "page": 32, "n": 8},
    {"who": 0, "op": "fork", "child": 1},
    {"who": 0, "op": "clear_refs", "value": "4", "target": 0},
    {"who": 0, "op": "write", "page": 3, "n": 2},
    {"who": 1, "op": "write", "page": 5, "n": 1},
    {"who": 0, "op": "write", "page": 33, "n": 1},
    {"who": 0, "op": "read", "page": 8, "n": 2},
    {"who": 0, "op": "write", "page": 0, "n": 16, "step": 7},
]
WRITTEN = [0, 3, 4, 7, 14, 33]
"""What process 0 wrote since its clear_refs."""
GATEWARE = [
    pytest.param(("--backend", "gateware", "--track", track), marks=pytest.mark.slow, id=f"gateware-{track}")
    for track in ("off", "fault", "native")
]
BACKENDS = [pytest.param((), id="model"), *GATEWARE]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A file with one scenario."""
    return write_scenarios(tmp_path / "s.jsonl", {"only": OPS})


def write_scenarios(path: Path, ops: dict[str, list[dict[str, Any]]]) -> Path:
    """A scenario file without answers."""
    lines: list[dict[str, Any]] = []
    for name, steps in ops.items():
        lines.append({"t": "scenario", "name": name, "doc": "", "base": hex(BASE << 12), "steps": len(steps)})
        lines.extend({"t": "step", "name": name, "i": i, "op": op} for i, op in enumerate(steps))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def command(*arguments: object) -> list[str]:
    """A call of ``ptewalk procfs``."""
    return [str(PTEWALK), "procfs", *map(str, arguments)]


def need_fuse() -> None:
    """What cannot be had in every container is not run there."""
    if not Path("/dev/fuse").exists():
        pytest.skip("optional: no /dev/fuse")
    if os.getuid() and not shutil.which("fusermount3"):
        pytest.skip("optional: not root, and no fusermount3")


@contextmanager
def served(
    folder: Path, scenario: Path, *options: object, end: int = signal.SIGTERM, told: tuple[int, str] = (0, "")
) -> Iterator[Path]:
    """A mount in the foreground; `end` is the signal that must unmount it, `told` the exit code and what it says."""
    need_fuse()
    mountpoint = folder / "mount"
    mountpoint.mkdir()
    process = subprocess.Popen(
        command("--foreground", mountpoint, scenario, *options), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 600
        while not os.path.ismount(mountpoint):
            if process.poll() is not None:
                _, complaint = process.communicate()
                if "mounting was refused" in complaint:
                    pytest.skip(f"optional: {complaint.splitlines()[-1]}")
                raise AssertionError(complaint)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield mountpoint
    finally:
        process.send_signal(end)
        _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint.partition(": captured")[0]) == told
    assert not os.path.ismount(mountpoint)
    mountpoint.rmdir()


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file descriptor."""
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def words(path: Path, first: int, count: int) -> list[int]:
    """Words of a file by one pread."""
    with opened(path) as handle:
        data = os.pread(handle, 8 * count, 8 * first)
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def dirty(mountpoint: Path, pid: int = 1) -> list[int]:
    """Pages of the window with bit 55."""
    return [page for page, word in enumerate(words(mountpoint / str(pid) / "pagemap", BASE, 64)) if word & SOFT_DIRTY]


# A reader of the project's own: plain open, pread and write.


@pytest.mark.thorough
@pytest.mark.parametrize("options", BACKENDS)
def test_written_pages_and_no_others(tmp_path: Path, scenario: Path, options: tuple[str, ...]) -> None:
    with served(tmp_path, scenario, *options) as mountpoint:
        assert dirty(mountpoint) == WRITTEN
        assert dirty(mountpoint, 2) == [*range(16), *range(32, 40)]  # never cleared
        (mountpoint / "1" / "clear_refs").write_text("4\n")
        assert dirty(mountpoint) == []
        assert dirty(mountpoint, 2) == [*range(16), *range(32, 40)]


@pytest.mark.slow
def test_the_pages_are_marked_by_the_gateware_itself(tmp_path: Path, scenario: Path) -> None:
    """A defect of the gateware, which grants writes without marking, is seen in the mount.

    It loses page 33, which is shared and stays writable; the fork left the others read-only: software marks them. The
    golden model says in which step, by the accesses that the event log has.
    """
    options = ("--backend", "gateware", "--track", "native", "--mutant", "unmarked-write-granted")
    step = OPS.index({"who": 0, "op": "write", "page": 33, "n": 1})
    with served(tmp_path, scenario, *options, told=(1, f"differs: only step {step}: log")) as mountpoint:
        assert dirty(mountpoint) == [page for page in WRITTEN if page != 33]


@pytest.mark.thorough
def test_frames_by_way_of_pagemap(tmp_path: Path, scenario: Path) -> None:
    """Pages that parent and child share are counted twice, and are one frame."""
    with served(tmp_path, scenario) as mountpoint:
        parent, child = (words(mountpoint / pid / "pagemap", BASE, 16) for pid in ("1", "2"))
        assert all(word & PRESENT for word in parent + child)
        counts = [words(mountpoint / "kpagecount", word & FRAME, 1) for word in parent]
        same = [left & FRAME == right & FRAME for left, right in zip(parent, child, strict=True)]
        assert [count == [2] for count in counts] == same
        assert [page for page, shared in enumerate(same) if not shared] == [0, 3, 4, 5, 7, 14]
        assert all(words(mountpoint / "kpageflags", word & FRAME, 1)[0] >> 12 & 1 for word in parent)  # KPF_ANON


@pytest.mark.thorough
def test_system_calls_fail_as_in_proc(tmp_path: Path, scenario: Path) -> None:
    def errno_of(call: Any, *arguments: Any) -> int | None:
        try:
            call(*arguments)
        except OSError as error:
            return error.errno
        return None

    with served(tmp_path, scenario) as mountpoint:
        with opened(mountpoint / "1" / "pagemap") as pagemap:
            assert errno_of(os.pread, pagemap, 12, 0) == errno.EINVAL
            assert errno_of(os.pread, pagemap, 8, 4) == errno.EINVAL
            assert os.pread(pagemap, 8, 1 << 40) == b""
            assert len(os.pread(pagemap, 1 << 20, 8 * BASE)) == 1 << 20
            os.lseek(pagemap, 8 * (BASE + 3), os.SEEK_SET)
            assert struct.unpack("<2Q", os.read(pagemap, 16))[1] & SOFT_DIRTY
        with opened(mountpoint / "1" / "clear_refs", os.O_WRONLY) as clear_refs:
            for text in (b"0", b"6", b"x", b"0x4", b"-4"):
                assert errno_of(os.write, clear_refs, text) == errno.EINVAL
            assert errno_of(os.write, clear_refs, b"2147483648") == errno.ERANGE
            assert dirty(mountpoint) == WRITTEN
            assert os.write(clear_refs, b"4" + b" " * 20) == 12
            assert dirty(mountpoint) == []
        with opened(mountpoint / "1" / "clear_refs") as clear_refs:
            assert errno_of(os.read, clear_refs, 8) == errno.EINVAL
        with opened(mountpoint / "1" / "pagemap", os.O_RDWR) as pagemap:
            assert errno_of(os.write, pagemap, b"12345678") == errno.EINVAL
        assert errno_of(os.stat, mountpoint / "3") == errno.ENOENT
        assert errno_of(os.listdir, mountpoint / "1" / "maps") == errno.ENOTDIR
        assert errno_of(os.open, mountpoint / "new", os.O_CREAT | os.O_WRONLY) == errno.ENOENT
        assert {"1", "2", "kpagecount", "kpageflags", "meminfo"} < set(os.listdir(mountpoint))
        assert (mountpoint / "1" / "maps").read_text().splitlines()[0].startswith("100000000000-100000010000 rw-p")
        assert (mountpoint / "1" / "smaps").read_text().count("VmFlags:") == 2


def test_shell_redirection(tmp_path: Path, scenario: Path) -> None:
    with served(tmp_path, scenario) as mountpoint:
        target = mountpoint / "1" / "clear_refs"
        assert subprocess.run(["sh", "-c", f"echo 4 > {target}"]).returncode == 0
        assert dirty(mountpoint) == []
        assert subprocess.run(["sh", "-c", f"echo 9 > {target}"], stderr=subprocess.DEVNULL).returncode


@pytest.mark.thorough
def test_the_unprivileged_see_no_frames(tmp_path: Path, scenario: Path) -> None:
    with served(tmp_path, scenario, "--unprivileged") as mountpoint:
        assert dirty(mountpoint) == WRITTEN
        assert not any(word & FRAME for word in words(mountpoint / "1" / "pagemap", BASE, 64))


@pytest.mark.parametrize(
    ("step", "expected"), [(4, [*range(16), *range(32, 40)]), (5, []), (6, [3, 4]), (8, [3, 4, 33]), (10, WRITTEN)]
)
def test_state_after_a_step(scenario: Path, step: int, expected: list[int]) -> None:
    """`ProcTree` without a mount."""
    assert tree_dirty(ServedState(str(scenario), step=step)) == expected


@pytest.mark.parametrize("track", ["off", "fault", "native"])
@pytest.mark.parametrize("profile", ["linux-3.11", "linux-6.1", "linux-6.12", "exact"])
def test_every_profile_and_way_of_tracking(scenario: Path, profile: str, track: str) -> None:
    assert tree_dirty(ServedState(str(scenario), profile=profile, track=track)) == WRITTEN


def test_without_soft_dirty(scenario: Path) -> None:
    assert tree_dirty(ServedState(str(scenario), soft_dirty=False)) == []


class Info:
    """libfuse's fuse_file_info, as far as it is used."""

    fh = 0
    direct_io = 0


def tree_dirty(state: ServedState) -> list[int]:
    """Pages with bit 55 by the operations that libfuse calls."""
    tree = ProcTree(state.run(), privileged=True, ready=lambda: None)
    info = Info()
    assert tree.open("/1/pagemap", info) == 0
    assert info.direct_io == 1
    data = tree.read("/1/pagemap", 8 * 64, 8 * BASE, info)
    tree.release("/1/pagemap", info)
    return [page for page, (word,) in enumerate(struct.iter_unpack("<Q", data)) if word & SOFT_DIRTY]


def test_the_model_errno_becomes_the_system_errno(scenario: Path) -> None:
    tree = ProcTree(ServedState(str(scenario)).run(), privileged=True, ready=lambda: None)
    info = Info()
    tree.open("/1/clear_refs", info)
    for text, number in ((b"9", errno.EINVAL), (b"99999999999", errno.ERANGE)):
        with pytest.raises(OSError) as caught:
            tree.write("/1/clear_refs", text, 0, info)
        assert caught.value.errno == number
    with pytest.raises(FileNotFoundError):
        tree.getattr("/7")


# Beginning and end.


@pytest.mark.thorough
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unmounts(tmp_path: Path, scenario: Path, end: int) -> None:
    with served(tmp_path, scenario, end=end) as mountpoint:
        assert (mountpoint / "1").is_dir()


def test_umount_ends_what_serves_in_the_background(tmp_path: Path, scenario: Path) -> None:
    need_fuse()
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    started = subprocess.run(command(mountpoint, scenario), capture_output=True, text=True, timeout=120)
    if "mounting was refused" in started.stderr:
        pytest.skip(f"optional: {started.stderr}")
    assert started.returncode == 0, started.stderr
    assert f"process 1: {mountpoint}/2\n" in started.stdout
    assert dirty(mountpoint) == WRITTEN
    unmount = ["umount"] if not os.getuid() else ["fusermount3", "-u"]
    assert subprocess.run([*unmount, str(mountpoint)]).returncode == 0
    deadline = time.monotonic() + 30
    while serving := [pid for pid in os.listdir("/proc") if pid.isdigit() and names(pid, str(mountpoint))]:
        assert time.monotonic() < deadline, serving
        time.sleep(0.05)
    assert not os.listdir(mountpoint)


def names(pid: str, argument: str) -> bool:
    """Is `argument` one of a process's?"""
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line of a call that must fail as bad use."""
    monkeypatch.setattr(sys, "argv", ["ptewalk", "procfs", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    seen = capfd.readouterr()
    assert (ended.value.code, seen.out) == (2, "")
    [line] = seen.err.splitlines()
    return line


def test_bad_use_gets_one_line(
    tmp_path: Path, scenario: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(serve, "_DEVICE", device)
    empty = tmp_path / "empty"
    empty.mkdir()
    several = write_scenarios(tmp_path / "several.jsonl", {"a": OPS, "b": OPS[:1]})
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n")
    dead = write_scenarios(tmp_path / "dead.jsonl", {"dead": [OPS[0], {**OPS[1], "who": 3}]})
    for arguments, text in (
        ((tmp_path / "none", scenario), f"{tmp_path / 'none'} does not exist: make one with mkdir {tmp_path / 'none'}"),
        ((scenario, scenario), f"{scenario} is not a folder"),
        ((tmp_path, scenario), f"{tmp_path} is not empty"),
        ((empty, tmp_path / "no.jsonl"), "no.jsonl' does not exist"),
        ((empty, bad), f"{bad}:1: "),
        ((empty, scenario, "--name", "x"), "no scenario 'x'"),
        ((empty, several), "has 2 scenarios (a, b): choose one with --name"),
        ((empty, several, "--name", "b", "--step", 1), "no step 1 in scenario 'b': it has steps 0 to 0"),
        ((empty, scenario, "--profile", "linux-9"), "no profile 'linux-9'"),
        ((empty, scenario, "--simulator", "icarus"), "--simulator goes with --backend gateware"),
        ((empty, dead), "dead.jsonl:3: write: process 3 (who) does not live"),
    ):
        assert text in refused(capfd, monkeypatch, *arguments)
    assert not os.path.ismount(empty)


@pytest.mark.thorough
def test_missing_libfuse_is_named(tmp_path: Path, scenario: Path) -> None:
    need_fuse()
    (tmp_path / "empty").mkdir()
    without = os.environ | {"FUSE_LIBRARY_NAME": "no-such-library", "FUSE_LIBRARY_PATH": ""}
    call = command(tmp_path / "empty", scenario)
    result = subprocess.run(call, capture_output=True, text=True, env=without, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "ptewalk: libfuse is not installed: sudo apt-get install fuse3\n"


def test_what_the_machine_lacks_is_named(tmp_path: Path, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = ServedState(str(scenario)).run()

    def mount() -> None:
        fuse_tree.mount(kernel, tmp_path, privileged=True, ready=lambda: None)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(1)

    monkeypatch.setitem(sys.modules, "mfusepy", types.SimpleNamespace(FUSE=refuse))
    with pytest.raises(ToolError, match="mounting was refused: be root, or have fusermount3"):
        mount()
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(ToolError, match=r"pip install '\.\[cosim\]'"):
        mount()
    monkeypatch.setattr(serve, "_DEVICE", tmp_path / "fuse")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolError, match="there is no .*/fuse: load the kernel's module with modprobe fuse"):
        check_mountpoint(tmp_path / "empty")


def test_what_an_ordinary_user_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn: the device, who mounts for him, the folder."""
    device, mountpoint = tmp_path / "fuse", tmp_path / "empty"
    device.write_text("")
    mountpoint.mkdir()
    closed = {device}
    monkeypatch.setattr(serve, "_DEVICE", device)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.access", lambda path, _: path not in closed)
    with pytest.raises(ToolError, match=f"this user cannot open {device}: sudo chmod 666 {device}, or run as root"):
        check_mountpoint(mountpoint)
    closed.clear()
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ToolError, match=r"mounts by fusermount3, which was not found: sudo apt-get install fuse3"):
        check_mountpoint(mountpoint)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    check_mountpoint(mountpoint)
    closed.add(mountpoint)
    with pytest.raises(ToolError, match=f"{mountpoint} cannot be written by this user: name a folder that can"):
        check_mountpoint(mountpoint)


# Programs that nobody here wrote.


def in_place_of_proc(script: str) -> list[list[str]]:
    """What a shell script prints, in fields, in a mount namespace of its own."""
    result = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, timeout=120)
    if "unshare:" in result.stderr or "mount:" in result.stderr:
        pytest.skip(f"optional: no mount namespace: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("options", BACKENDS)
def test_page_types_of_the_kernel_lists_the_written_pages(
    tmp_path: Path, scenario: Path, options: tuple[str, ...], page_types: Path
) -> None:
    """tools/vm/page-types.c: it reads maps, pagemap and kpageflags below /proc."""
    with served(tmp_path, scenario, *options) as mountpoint:
        frames = words(mountpoint / "1" / "pagemap", BASE, 64)
        call = f"mount --bind {mountpoint} /proc; {page_types} --pid 1 --raw --list-each --no-summary"
        header, *rows = in_place_of_proc(f"{call} --bits softdirty")
        assert header == ["voffset", "offset", "flags"]
        assert [int(row[0], 16) - BASE for row in rows] == WRITTEN
        assert [int(row[1], 16) for row in rows] == [frames[page] & FRAME for page in WRITTEN]
        _, *rows = in_place_of_proc(call)
        assert [int(row[0], 16) - BASE for row in rows] == [*range(16), *range(32, 40)]
        (mountpoint / "1" / "clear_refs").write_text("4")
        assert in_place_of_proc(f"{call} --bits softdirty") == [header]


@pytest.mark.thorough
def test_ps_and_pmap_of_procps(tmp_path: Path, scenario: Path) -> None:
    """Debian's ps and pmap, with the tree in the place of /proc: they find the processes, their parents and sizes."""
    if not shutil.which("pmap") or not shutil.which("ps"):
        pytest.skip("optional: no ps and pmap: sudo apt-get install procps")
    with served(tmp_path, scenario) as mountpoint:
        bind = f"mount --bind {mountpoint} /proc"
        found = in_place_of_proc(f"{bind}; ps -eo pid,ppid,rss,vsz,comm; ps aux; pmap 1; pmap -X 1")
    assert found[:3] == [
        ["PID", "PPID", "RSS", "VSZ", "COMMAND"],
        ["1", "0", "96", "96", "process0"],
        ["2", "1", "64", "96", "process1"],
    ]
    assert [(row[1], row[4], row[5], row[-1]) for row in found[4:6]] == [
        ("1", "96", "96", "process0"),
        ("2", "96", "64", "process1"),
    ]
    assert found[6:10] == [
        ["1:", "process0"],
        ["0000100000000000", "64K", "rw---", "[", "anon", "]"],
        ["0000100000020000", "32K", "rw-s-", "file1"],
        ["total", "96K"],
    ]
    at = next(index for index, row in enumerate(found) if row[0] == "Address")
    areas = [dict(zip(found[at], row, strict=False)) for row in found[at + 1 : at + 3]]
    assert [area["Address"] for area in areas] == ["100000000000", "100000020000"]
    assert [area["Rss"] for area in areas] == ["64", "32"]
    assert [area["Pss"] for area in areas] == ["44", "32"]  # ten pages shared; a fork copies no shared entry
    assert [area["Referenced"] for area in areas] == ["64", "32"]
    assert areas[1]["Mapping"] == "file1"


@pytest.mark.thorough
def test_psutil(tmp_path: Path, scenario: Path) -> None:
    code = """
import psutil
for process in psutil.process_iter():
    memory = process.memory_full_info()
    print(process.pid, process.ppid(), process.name(), memory.rss, memory.pss, memory.uss, len(process.memory_maps()))
print(psutil.virtual_memory().total)
"""
    with served(tmp_path, scenario) as mountpoint:
        rows = in_place_of_proc(f"mount --bind {mountpoint} /proc; {sys.executable} -c '{code}'")
    assert rows == [
        ["1", "0", "process0", str(96 << 10), str(76 << 10), str(56 << 10), "2"],
        ["2", "1", "process1", str(64 << 10), str(44 << 10), str(24 << 10), "2"],
        [str(4 << 30)],
    ]


@pytest.mark.thorough
def test_smem(tmp_path: Path, scenario: Path) -> None:
    if not shutil.which("smem"):
        pytest.skip("optional: no smem: sudo apt-get install smem")
    with served(tmp_path, scenario) as mountpoint:
        header, *rows = in_place_of_proc(f"mount --bind {mountpoint} /proc; smem -c 'pid command swap uss pss rss'")
    assert header[0] == "PID"
    assert sorted(rows) == [["1", "process0", "0", "56", "76", "96"], ["2", "process1", "0", "24", "44", "64"]]
