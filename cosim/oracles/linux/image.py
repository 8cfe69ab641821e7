"""The kernel image and the initramfs of the recorder's guest: described, or built and cached by content."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import user_cache_folder

AGENT_SOURCE = Path(__file__).with_name("agent.c")
MODULES_WANTED = ("zsmalloc", "lzo_rle", "lz4_compress", "lz4", "lz4hc_compress", "lz4hc", "zram")
"""Modules that a zram swap device may need, each with its dependencies; what is built in is not there, not missed."""


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """A kernel image and the folder of its modules (None: whatever is needed is built in)."""

    image: Path
    release: str
    version: str
    """As recordings name it: 6.1.192."""
    modules: Path | None

    @property
    def old(self) -> bool:
        """True when its recordings have the form of those of 3.11."""
        return re.match(r"[0-3]\.", self.version) is not None


def program(name: str, package: str) -> str:
    """The path of a system program, or a `ToolError` that names the package that has it."""
    path = shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is not installed; install it with: apt-get install {package}")
    return path


def run_tool(command: list[str], what: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a program prints; `ToolError` with its last line when it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise ToolError(f"{what} failed: {tail[0]}")
    return done.stdout


def read_image(image: Path, modules: Path | None = None) -> GuestKernel:
    """Describe a bzImage by its own header; look for its modules where distributions put them."""
    try:
        with image.open("rb") as file:
            header = file.read(0x8000)
    except OSError as error:
        raise ToolError(f"kernel {image}: {error.strerror}; name a bzImage with KERNEL=path") from error
    if header[0x202:0x206] != b"HdrS":
        raise ToolError(f"kernel {image} is not a bzImage; name a bootable x86-64 kernel")
    at = int.from_bytes(header[0x20E:0x210], "little") + 0x200
    text = header[at:].split(b"\0", 1)[0].decode("latin-1")
    release = text.split(" ", 1)[0]
    debian = re.search(r"Debian (\d+\.\d+\.\d+)", text)
    plain = re.match(r"\d+\.\d+(\.\d+)?", release)
    version = debian.group(1) if debian else plain.group(0) if plain else release
    if modules is None:
        modules = _find_modules(image, release)
    return GuestKernel(image, release, version, modules)


def _find_modules(image: Path, release: str) -> Path | None:
    """The folder of a kernel's modules: beside the image (usr/lib/modules/RELEASE/vmlinuz), near it, or the host's."""
    if image.parent.name == release:
        return image.parent
    roots = (image.parent.parent / "lib", image.parent.parent / "usr/lib", Path("/lib"), Path("/usr/lib"))
    return next((root / "modules" / release for root in roots if (root / "modules" / release).is_dir()), None)


def publish(made: Path, target: Path) -> None:
    """Move `made` to `target` in one step; another process may have been first."""
    try:
        made.rename(target)
    except OSError:
        if not target.exists():
            raise


def build_agent(source: Path = AGENT_SOURCE) -> Path:
    """The guest's init, compiled from agent.c or another source; cached by source and compiler."""
    gcc = program("gcc", "gcc libc6-dev")
    flags = ["-static", "-O2", "-s"]
    key = hashlib.sha256(
        source.read_bytes() + run_tool([gcc, "--version"], "gcc --version").encode() + " ".join(flags).encode()
    )
    target = user_cache_folder() / "agents" / key.hexdigest()[:24]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / "agent"
            run_tool([gcc, *flags, "-o", str(made), str(source)], "gcc (needs libc6-dev for a static program)")
            publish(made, target)
    return target


def _module_files(modules: Path) -> dict[str, Path]:
    """Module name (with underscores) to file."""
    found = {}
    for path in modules.rglob("*.ko*"):
        name, _, suffix = path.name.partition(".ko")
        if suffix in ("", ".xz", ".zst"):
            found[name.replace("-", "_")] = path
    return found


def _module_bytes(path: Path) -> bytes:
    if path.suffix == ".zst":
        done = subprocess.run([program("zstd", "zstd"), "-dcq", str(path)], capture_output=True, check=False)
        if done.returncode:
            raise ToolError(f"{path} cannot be unpacked; remove the folder of that kernel and fetch it again")
        return done.stdout
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def load_order(modules: Path) -> list[bytes]:
    """The wanted modules' contents, each after what it depends on."""
    files = _module_files(modules)
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name in loaded or name not in files:
            return
        data = _module_bytes(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends.group(1).decode().split(",") if depends else ():
            load(other.replace("-", "_"))
        loaded[name] = data

    for name in MODULES_WANTED:
        load(name)
    return list(loaded.values())


def cpio(entries: list[tuple[str, int, bytes, tuple[int, int]]], times: Mapping[str, int] | None = None) -> bytes:
    """A cpio archive ("newc") of (path, mode, contents, device numbers); `times`: path to when it was changed."""
    out = bytearray()
    for inode, (path, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], 1):
        name = os.fsencode(path) + b"\0"
        changed = (times or {}).get(path, 0)
        numbers = [inode, mode, 0, 0, 1, changed, len(data), 0, 0, *device, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def disk_image() -> bytes:
    """An empty ext2 file system of 1 MiB, the same one each time; empty where there is no mke2fs."""
    mke2fs = shutil.which("mke2fs") or shutil.which("mke2fs", path="/usr/sbin:/sbin")
    if mke2fs is None:
        return b""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image"
        image.write_bytes(bytes(1 << 20))
        same = ["-U", "clear", "-E", "hash_seed=00000000-0000-0000-0000-000000000001,root_owner=0:0"]
        make = ["env", "E2FSPROGS_FAKE_TIME=1", mke2fs, "-q", "-F", "-t", "ext2", "-b", "4096", "-I", "128"]
        run_tool([*make, *same, str(image)], "mke2fs")
        return image.read_bytes()


def build_initramfs(kernel: GuestKernel) -> Path:
    """The initramfs for `kernel`: the agent as init, and the modules it loads; cached by content."""
    entries = [(name, 0o040755, b"", (0, 0)) for name in ("dev", "proc", "sys", "modules", "memory", "disk")]
    entries.append(("dev/console", 0o020600, b"", (5, 1)))
    entries.append(("init", 0o100755, build_agent().read_bytes(), (0, 0)))
    if kernel.modules is not None:
        for i, data in enumerate(load_order(kernel.modules)):
            entries.append((f"modules/{i}.ko", 0o100644, data, (0, 0)))
    if kernel.old and (image := disk_image()):
        entries.append(("disk.image", 0o100600, image, (0, 0)))
    archive = cpio(entries)
    target = user_cache_folder() / "initramfs" / hashlib.sha256(archive).hexdigest()[:24]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / "initramfs"
            made.write_bytes(archive)
            publish(made, target)
    return target
