"""Inode numbers and times of what a program writes are the run's own, whatever the host gives its files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.images import numbers, read_image
from ptewalk.cosim.programs.nodes import Nodes
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES

SCRIPT = """cd /tmp; mkdir a; echo x > a/b; ln -s b a/c; echo kept > a/e; exec 5<> a/b; rm a/b; mv a/e a/f; echo y > a/d
: | :
for i in 1 2 3; do ls -id . a a/c a/d a/f; stat -c '%n %d %i %Y %h' . a a/c a/d a/f /proc/self/fd/5; : | :; done
stat -L -c '%d %i' /proc/self/fd/5 /bin/sh; ls -ia a"""


def start(folder: Path | None, scratch: Path) -> tuple[bytes, ProgramRun]:
    settings = Settings(
        PROFILES["linux-6.1"], Track.NATIVE, epoch=Every("syscalls", 61), checkpoint=folder, scratch=scratch
    )
    out = io.BytesIO()
    with ProgramRun(settings, ModelWalker, stdin=None, stdout=out, stderr=io.BytesIO()) as running:
        running.start("/bin/busybox", ["sh", "-c", SCRIPT])
        assert running.run() == 0
    return out.getvalue(), running


@pytest.mark.slow
def test_the_hosts_numbers_do_not_show(tmp_path: Path, have: Callable[[str], str]) -> None:
    """Nor do they after a restore, from before and after each file was made, and removed."""
    have("busybox")
    first, run = start(tmp_path / "images", tmp_path / "first")
    lines = first.decode().splitlines()
    named = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("a", "."))}
    device, made = named["a"][0], {name: int(said[1]) for name, said in named.items()}
    assert int(device) == os.makedev(0, 0xFFFFE)
    assert made["."] < made["a"] < made["a/c"] < made["a/f"] < made["a/d"]
    assert all(said[2] == "1700000000" for said in named.values())
    removed, host = (line.split() for line in lines[33:35])
    there = os.stat("/bin/sh")
    assert (removed[0], int(removed[1])) == (device, made["a"] + 1)
    assert host == [str(there.st_dev), str(there.st_ino)]

    for number in range(40):
        (tmp_path / f"churn{number}").touch()
    again, _ = start(None, tmp_path / "second")
    assert again == first

    there_are = numbers(tmp_path / "images")
    assert len(there_are) >= 4
    for number in there_are:
        (tmp_path / f"more{number}").touch()
        state = read_image(tmp_path / "images", number).state
        out = io.BytesIO()
        settings = Settings.from_json(state["settings"])
        with ProgramRun(settings, ModelWalker, stdin=None, stdout=out, stderr=io.BytesIO()) as second:
            second.restore(tmp_path / "images", number)
            assert second.run() == 0
        assert out.getvalue() and first.endswith(out.getvalue())
        if second.epochs is not None and second.epochs.done:
            assert run.epochs is not None and second.epochs.contents() == run.epochs.contents()


def test_a_number_is_not_used_twice(tmp_path: Path) -> None:
    """The host gives a removed file's number to the next one; the run does not."""
    nodes = Nodes()
    seen = []
    for name in ("one", "two"):
        path = tmp_path / name
        path.touch()
        nodes.made(os.fsencode(path))
        seen.append(nodes.identity(os.stat(path), written=True))
        path.unlink()
    assert seen == [(os.makedev(0, 0xFFFFE), 1), (os.makedev(0, 0xFFFFE), 2)]
