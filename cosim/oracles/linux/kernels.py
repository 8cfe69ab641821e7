"""Kernels for the recorder: an image that somebody has, or Debian's packages, fetched and unpacked but not installed.

Debian's are asked of the machine's own apt first. What it does not know, an apt of the project's own does: sources,
lists and keyring lie in the cache, and the mirror is the one that the machine uses.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import locked, user_cache_folder
from ptewalk.cosim.oracles.linux.image import GuestKernel, program, publish, read_image, run_tool

__all__ = ["find_kernel", "unpack"]

SERIES: Final = re.compile(r"\d+\.\d+(\.\d+)?")
SUITES: Final = ("bookworm-backports", "trixie", "trixie-backports", "sid")
"""Where Debian has kernels that are newer than a machine's own suite."""
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PARTS: Final = ("linux-binary-", "linux-modules-")
"""What linux-image-* consists of since 6.19: it has no file of its own, and depends on these."""
_FRESH: Final = 3600.0
"""Seconds for which the newer suites' lists are not fetched again."""
_DROPPED: Final = "dropped"
"""File in a kernel's folder: the packages that the pool has no more, a line each."""
_NEXT: Final = "name a kernel with KERNEL=path, or give packages that you have with --deb"


class _Apt:
    """apt-cache and apt-get, of the machine or with a configuration of its own."""

    def __init__(self, config: Path | None = None) -> None:
        self.env = None if config is None else os.environ | {"APT_CONFIG": str(config)}

    def search(self, series: str) -> list[str]:
        """Debian's cloud kernels of a series, or of one exact version, the newest last."""
        version = re.escape(series) + (r"\.[0-9]" if series.count(".") == 1 else r"[^0-9.]")
        pattern = rf"^linux-image-{version}.*-cloud-amd64$"
        found = self._ask("search", "--names-only", pattern)
        names = [line.split(" ", 1)[0] for line in found.splitlines()]
        return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def parts(self, package: str) -> list[str]:
        """The packages whose files make a kernel: the image itself, and what it is split into."""
        words = re.findall(r"[\w.+-]+", self._ask("depends", "--important", package))
        return [package, *dict.fromkeys(word for word in words if word.startswith(_PARTS))]

    def has(self, package: str) -> bool:
        """Is there a version of the package that can be fetched?"""
        return bool(self._ask("madison", package).strip())

    def download(self, package: str, folder: Path) -> None:
        """Fetch a package into a folder."""
        run_tool([program("apt-get", "apt"), "download", package], f"apt-get download {package}", folder, self.env)

    def _ask(self, *arguments: str) -> str:
        return run_tool([program("apt-cache", "apt"), *arguments], f"apt-cache {arguments[0]}", None, self.env)


def find_kernel(name: str | None = None) -> GuestKernel:
    """The kernel to boot.

    Parameters
    ----------
    name : str or None
        A path of a bzImage; a series (``6.1``, ``7.3``) or version (``6.18.15``) for Debian's cloud kernel; None
        (default): the environment variable KERNEL, or 6.1.
    """
    name = name or os.environ.get("KERNEL") or "6.1"
    if SERIES.fullmatch(name):
        return fetch_debian_kernel(name)
    return read_image(Path(name))


def fetch_debian_kernel(series: str) -> GuestKernel:
    """Debian's newest cloud kernel of `series`: downloaded and unpacked once into the cache, nothing installed."""
    folder = user_cache_folder() / "kernels" / f"debian-{series}"
    if not _images(folder):
        if not shutil.which("apt-get"):
            raise ToolError(f"no apt-get to fetch Debian's kernel {series} with; {_NEXT}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(folder.name + ".lock")):
            if not _images(folder):
                _fetch(series, folder)
    return read_image(_images(folder)[-1])


def unpack(packages: Sequence[Path]) -> Path:
    """The image of a kernel that these Debian packages hold, unpacked once into the cache."""
    text = b"".join(hashlib.sha256(_content(package)).digest() for package in packages)
    folder = user_cache_folder() / "kernels" / f"deb-{hashlib.sha256(text).hexdigest()[:16]}"
    if not _images(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            root = Path(scratch) / "root"
            _extract(packages, root)
            if not _images(root):
                names = " ".join(package.name for package in packages)
                raise ToolError(f"{names}: no kernel image in it; since 6.19 that is in linux-binary-*.deb")
            publish(root, folder)
    return _images(folder)[-1]


def missing_packages(kernel: GuestKernel) -> list[str]:
    """Packages of a fetched kernel that the pool has no more."""
    for folder in kernel.image.parents:
        if (folder / _DROPPED).is_file():
            return (folder / _DROPPED).read_text().split()
    return []


def _content(package: Path) -> bytes:
    try:
        data = package.read_bytes()
    except OSError as error:
        raise ToolError(f"{package}: {error.strerror}") from None
    if not data.startswith(b"!<arch>"):
        raise ToolError(f"{package} is not a Debian package")
    return data


def _images(folder: Path) -> list[Path]:
    """Kernel images below a folder, where Debian puts them; 7.2 and later beside their modules."""
    return sorted([*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")])


def _extract(packages: Sequence[Path], root: Path) -> None:
    dpkg = program("dpkg", "dpkg")
    for package in packages:
        run_tool([dpkg, "-x", str(package), str(root)], f"dpkg -x {package.name}")


def _fetch(series: str, folder: Path) -> None:
    """Download and unpack a kernel's packages to `folder`; what the pool has dropped is noted there."""
    apt = _Apt()
    names = apt.search(series)
    if not names:
        apt = _own_apt()
        names = apt.search(series)
    if not names:
        raise ToolError(f"no Debian package linux-image-{series}*-cloud-amd64 in {', '.join(SUITES)}; {_NEXT}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place, root = Path(scratch), Path(scratch) / "root"
        place.chmod(0o755)
        dropped = []
        for package in apt.parts(names[-1]):
            if apt.has(package):
                apt.download(package, place)
            else:
                dropped.append(package)
        _extract(sorted(place.glob("*.deb")), root)
        if not _images(root):
            raise ToolError(f"{names[-1]}: Debian's pool has dropped {' and '.join(dropped)}; {_NEXT}")
        if dropped:
            (root / _DROPPED).write_text("".join(f"{name}\n" for name in dropped))
        shutil.rmtree(folder, ignore_errors=True)  # one that an earlier version left without an image
        publish(root, folder)


def _own_apt() -> _Apt:
    """An apt with newer suites of the machine's mirror, below the cache; the machine's own is not touched."""
    folder = user_cache_folder() / "apt"
    lists = folder / "lists"
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if not KEYRING.is_file():
        raise ToolError(f"no {KEYRING} to check Debian's newer suites with: apt-get install debian-archive-keyring")
    keyring = folder / "keyring.gpg"
    shutil.copyfile(KEYRING, keyring)
    mirror = _mirror()
    lines = [f"deb [signed-by={keyring}] {mirror} {suite} main\n" for suite in SUITES]
    (folder / "sources.list").write_text("".join(lines))
    (folder / "status").touch()
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": lists,
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "APT::Architecture": "amd64",
        "Acquire::Languages": "none",
    }
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"  # apt's own user cannot enter root's cache
    config = folder / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in options.items()))
    apt = _Apt(config)
    if not any(lists.glob("*Packages*")) or time.time() - lists.stat().st_mtime > _FRESH:
        run_tool([program("apt-get", "apt"), "update"], "apt-get update of Debian's newer suites", None, apt.env)
        os.utime(lists)
    return apt


def _mirror() -> str:
    """Where the machine gets Debian from, as its apt tells."""
    asked = [program("apt-get", "apt"), "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"]
    for line in run_tool([*asked, "Created-By: Packages"], "apt-get indextargets").splitlines():
        origin, label, *where = line.split(" ")
        if (origin, label) == ("Debian", "Debian") and where:
            return where[0]
    raise ToolError(f"apt knows no mirror of Debian: run 'apt-get update' on a Debian machine; {_NEXT}")
