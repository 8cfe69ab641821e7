"""Kernels from Debian's packages, with a stand-in for apt and dpkg; and packages of one's own."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux import kernels

RELEASE = "7.3.4+deb13-cloud-amd64"
APT_CACHE = """#!/bin/sh
case "$1" in
search) grep -E -- "$3" "$0.names" | sed 's/$/ - Linux/';;
depends) cat "$0.depends";;
madison) grep "^$2 " "$0.pool" || true;;
esac
"""
APT_GET = """#!/bin/sh
echo "$@" >> "$0.log"
case "$1" in
download) printf '!<arch>\\n%s' "$2" > "$2_1_amd64.deb";;
indextargets) echo 'Debian Debian-Security mirror:/security'; echo 'Debian Debian mirror:/debian/';;
update) test -n "$APT_CONFIG" || exit 1
        cp "$0.newer" "$(dirname "$0")/apt-cache.names"
        touch "$(dirname "$APT_CONFIG")/lists/a_Packages";;
esac
"""
DPKG = """#!/bin/sh
case "$2" in
*linux-binary*) mkdir -p "$3/$(cat "$0.place")" && cp "$0.image" "$3/$(cat "$0.place")/$(cat "$0.name")";;
*linux-modules*) mkdir -p "$3/usr/lib/modules/RELEASE/kernel";;
*) mkdir -p "$3";;
esac
"""


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that answer as apt and dpkg of a Debian machine do."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg", DPKG.replace("RELEASE", RELEASE))):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    header = bytearray(0x1000)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = struct.pack("<H", 0x400)
    text = f"{RELEASE} (who) #1 SMP Debian 7.3.4-1".encode()
    header[0x600 : 0x600 + len(text)] = text
    (programs / "dpkg.image").write_bytes(header)
    (programs / "dpkg.place").write_text(f"usr/lib/modules/{RELEASE}")
    (programs / "dpkg.name").write_text("vmlinuz")
    names = [f"linux-image-7.3.{n}+deb13-cloud-amd64" for n in (10, 4, 9)]
    (programs / "apt-get.newer").write_text("\n".join([*names, "linux-image-7.3.4+deb13-amd64"]) + "\n")
    (programs / "apt-cache.names").write_text("linux-image-6.1.0-56-cloud-amd64\n")
    split = [f"linux-{part}-7.3.10+deb13-cloud-amd64" for part in ("binary", "modules")]
    depends = "".join(f"  Depends: <{part}>\n" for part in split)
    (programs / "apt-cache.depends").write_text("linux-image\n  Depends: kmod\n" + depends)
    pool = ["linux-image-7.3.10+deb13-cloud-amd64", *split]
    (programs / "apt-cache.pool").write_text("".join(f"{name} | 1 | here\n" for name in pool))
    keyring = tmp_path / "keyring.gpg"
    keyring.write_bytes(b"keys")
    monkeypatch.setattr(kernels, "KEYRING", keyring)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path / "cache"))
    return programs


def asked(debian: Path) -> list[str]:
    """What apt-get was asked."""
    return (debian / "apt-get.log").read_text().splitlines()


def test_a_split_kernel_comes_with_an_apt_of_its_own(debian: Path, tmp_path: Path) -> None:
    """The newest of the series, and what it depends on; the machine's apt does not know it."""
    found = kernels.find_kernel("7.3")
    assert (found.release, found.version) == (RELEASE, "7.3.4")
    assert found.modules == tmp_path / "cache/kernels/debian-7.3/usr/lib/modules" / RELEASE
    downloads = [line for line in asked(debian) if line.startswith("download")]
    assert downloads == [f"download linux-{part}-7.3.10+deb13-cloud-amd64" for part in ("image", "binary", "modules")]
    sources = (tmp_path / "cache/apt/sources.list").read_text().splitlines()
    assert [line.split()[2:] for line in sources] == [["mirror:/debian/", suite, "main"] for suite in kernels.SUITES]
    assert kernels.missing_packages(found) == []
    assert kernels.find_kernel("7.3") == found
    assert asked(debian).count("update") == 1, "what is in the cache is not fetched again"


def test_what_the_pool_has_dropped_is_named(debian: Path) -> None:
    pool = debian / "apt-cache.pool"
    lines = pool.read_text().splitlines(keepends=True)
    pool.write_text("".join(line for line in lines if "modules" not in line))
    found = kernels.find_kernel("7.3")
    assert kernels.missing_packages(found) == ["linux-modules-7.3.10+deb13-cloud-amd64"]
    pool.write_text(lines[0])
    with pytest.raises(
        ToolError, match=r"pool has dropped linux-binary-7\.3\.10\S* and linux-modules-7\.3\.10\S*; name a"
    ):
        kernels.find_kernel("7.3.10")


def test_a_folder_without_an_image_is_made_anew(debian: Path, tmp_path: Path) -> None:
    (tmp_path / "cache/kernels/debian-7.3/usr/share").mkdir(parents=True)
    assert kernels.find_kernel("7.3").release == RELEASE


def test_no_such_series_and_no_mirror(debian: Path) -> None:
    with pytest.raises(
        ToolError, match=r"no Debian package linux-image-5\.9\*-cloud-amd64 in bookworm-backports, trixie"
    ):
        kernels.find_kernel("5.9")
    (debian / "apt-get").write_text("#!/bin/sh\n")
    with pytest.raises(ToolError, match="apt knows no mirror of Debian: run 'apt-get update'"):
        kernels.find_kernel("5.8")
    kernels.KEYRING.unlink()
    with pytest.raises(ToolError, match="apt-get install debian-archive-keyring"):
        kernels.find_kernel("5.8")


def test_packages_of_ones_own(debian: Path, tmp_path: Path) -> None:
    packages = [tmp_path / f"linux-{part}-7.3.4.deb" for part in ("binary", "modules")]
    for package in packages:
        package.write_bytes(b"!<arch>\n" + package.name.encode())
    image = kernels.unpack(packages)
    assert kernels.read_image(image).modules == image.parent
    assert kernels.unpack(packages) == image
    with pytest.raises(ToolError, match=r"linux-modules-7\.3\.4\.deb: no kernel image in it; since 6\.19"):
        kernels.unpack(packages[1:])
    packages[0].write_bytes(b"text")
    with pytest.raises(ToolError, match=r"linux-binary-7\.3\.4\.deb is not a Debian package"):
        kernels.unpack(packages)
