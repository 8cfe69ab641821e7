"""Kernel images, modules and the initramfs of the recorder's guest."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import user_cache_folder
from ptewalk.cosim.oracles.linux.image import (
    GuestKernel,
    cpio,
    disk_image,
    load_order,
    program,
    read_image,
)
from ptewalk.cosim.oracles.linux.kernels import find_kernel


def bzimage(folder: Path, text: bytes) -> Path:
    """The header of a bzImage whose version string is `text`."""
    header = bytearray(0x1000)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = struct.pack("<H", 0x400)
    header[0x600 : 0x600 + len(text)] = text
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vmlinuz"
    path.write_bytes(header)
    return path


def test_a_kernel_is_described_by_its_header(tmp_path: Path) -> None:
    image = bzimage(tmp_path / "boot", b"6.1.0-56-cloud-amd64 (who) #1 SMP Debian 6.1.192-2 (2026-11-16)")
    modules = tmp_path / "lib/modules/6.1.0-56-cloud-amd64"
    modules.mkdir(parents=True)
    kernel = read_image(image)
    assert (kernel.release, kernel.version, kernel.modules) == ("6.1.0-56-cloud-amd64", "6.1.192", modules)


def test_modules_in_usr_and_beside_the_image(tmp_path: Path) -> None:
    text = b"6.12.9+deb13-cloud-amd64 (who) #1 SMP Debian 6.12.9-1 (2026-11-16)"
    modules = tmp_path / "usr/lib/modules/6.12.9+deb13-cloud-amd64"
    beside = bzimage(modules, text)
    assert read_image(beside).modules == modules
    assert read_image(bzimage(tmp_path / "boot", text)).modules == modules


def test_a_kernel_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL", str(bzimage(tmp_path, b"6.6.0-rc1-mine (me) #3")))
    kernel = find_kernel()
    assert (kernel.release, kernel.version, kernel.modules) == ("6.6.0-rc1-mine", "6.6.0", None)


def test_what_is_not_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="nowhere: No such file or directory; name a bzImage with KERNEL=path"):
        find_kernel(str(tmp_path / "nowhere"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ToolError, match="text is not a bzImage"):
        find_kernel(str(tmp_path / "text"))


def test_no_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"no apt-get to fetch .* 6\.1 with; name a kernel with KERNEL=path"):
        find_kernel("6.1")


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(
        ToolError, match="no-such-program is not installed; install it with: apt-get install some-package"
    ):
        program("no-such-program", "some-package")


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path))
    assert user_cache_folder() == tmp_path
    monkeypatch.delenv("PTEWALK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "ptewalk"


def test_modules_follow_what_they_depend_on(tmp_path: Path) -> None:
    def module(name: str, depends: bytes) -> bytes:
        data = b"ELF " + name.encode() + b"\0depends=" + depends + b"\0"
        path = tmp_path / "kernel" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
        return data

    zram = module("zram.ko", b"zsmalloc,lz4-compress")
    zsmalloc = module("zsmalloc.ko.xz", b"")
    compress = module("lz4_compress.ko", b"")
    module("unrelated.ko", b"zram")
    assert load_order(tmp_path) == [zsmalloc, compress, zram]


def test_modules_may_be_packed_by_zstd(tmp_path: Path) -> None:
    if not shutil.which("zstd"):
        pytest.skip("optional: no zstd, which only kernels with .ko.zst need: apt-get install zstd")
    plain = tmp_path / "zram.ko"
    plain.write_bytes(b"ELF zram\0depends=\0")
    subprocess.run(["zstd", "-q", "--rm", str(plain)], check=True)
    assert load_order(tmp_path) == [b"ELF zram\0depends=\0"]
    (tmp_path / "zram.ko.zst").write_bytes(b"no such")
    with pytest.raises(ToolError, match="zram.ko.zst cannot be unpacked; remove the folder"):
        load_order(tmp_path)


def test_cpio() -> None:
    entries = [("dev", 0o040755, b"", (0, 0)), ("a", 0o100644, b"12345", (0, 0)), ("dev/c", 0o020600, b"", (5, 1))]
    archive = cpio(entries)
    assert len(archive) % 4 == 0
    at, found = 0, []
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + numbers[11] - 1].decode()
        start = (at + 110 + numbers[11] + 3) // 4 * 4
        found.append((name, numbers[1], archive[start : start + numbers[6]], (numbers[9], numbers[10])))
        at = (start + numbers[6] + 3) // 4 * 4
    assert found == [*entries, ("TRAILER!!!", 0, b"", (0, 0))]


def test_3_11_is_old() -> None:
    """Its recordings have a form of their own."""
    versions = ("3.11.0", "3.10", "4.19.1", "6.1.192", "6.12.117", "30.1", "mine")
    assert [GuestKernel(Path(), "", version, None).old for version in versions] == [True, True, *[False] * 5]


def test_the_disk_of_an_old_kernel_is_the_same_each_time() -> None:
    """An initramfs is cached by its contents."""
    image = disk_image()
    if not image:
        pytest.skip("optional: no mke2fs, which only guests of Linux 3.11 need: apt-get install e2fsprogs")
    assert image == disk_image()
    assert (len(image), image[0x438:0x43A]) == (1 << 20, b"\x53\xef"), "the magic number of ext2"
