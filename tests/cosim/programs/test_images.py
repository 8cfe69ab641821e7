"""A run goes on from its images: with the same output and the same memory, and only from images that are whole."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.images import Image, Pages, numbers, read_image, write_image
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.user_memory import ProgramMmu
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import PAGE_BYTES

Have = Callable[[str], str]
Programs = Callable[[str], str]
Command = Callable[..., tuple[int, str, str]]
SHELL = """for i in 5 3 9; do echo $i $RANDOM; done | sort -n > /tmp/sorted; cat /tmp/sorted; rm /tmp/sorted
trap 'echo got' USR1; kill -USR1 $$; (sleep 1; date) | tail -2"""


def image(number: int = 1) -> Image:
    return Image({"number": number}, bytes([number]) * (2 * PAGE_BYTES), [b"blob", b""])


# Images on disk.


def test_an_image_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_image(folder, 1, image())
    write_image(folder, 2, image(2))
    (folder / ".000003.77").mkdir(mode=0o700)
    assert numbers(folder) == [1, 2]
    found = read_image(folder, 2)
    assert (found.state, found.pages, found.blobs) == ({"number": 2}, b"\2" * (2 * PAGE_BYTES), [b"blob", b""])
    pages = Pages(folder)
    assert pages.page([1, 1]) == b"\1" * PAGE_BYTES and pages.blob([1, 0]) == b"blob"
    for place in ([1, 2], [1, -1]):
        with pytest.raises(ValueError, match="image 1 has no page"):
            pages.page(place)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0


def _edit(path: Path, change: Callable[[Any], object]) -> None:
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda at: (at / "pages.bin").write_bytes(b"x" * 4097), "pages.bin is cut off or was changed"),
        (lambda at: (at / "pages.bin").write_bytes(b"x" * 8192), "pages.bin is cut off or was changed"),
        (lambda at: (at / "file-0").write_bytes(b"blub"), "file-0 is cut off or was changed"),
        (lambda at: (at / "file-1").unlink(), "No such file or directory"),
        (lambda at: (at / "state.json").write_text("{"), "Expecting property name"),
        (lambda at: (at / "state.json").write_text("[]"), "list indices must be integers"),
        (lambda at: (at / "state.json").write_text("{}"), "state.json has no 'image'"),
        (
            lambda at: _edit(at / "state.json", lambda said: said["image"].update(version=9)),
            "version 9 of images; this",
        ),
        (
            lambda at: _edit(at / "state.json", lambda said: said["image"].update(format="tar")),
            "not an image of ptewalk",
        ),
        (
            lambda at: _edit(at / "state.json", lambda said: said["image"]["state"].update(x=1)),
            "state.json was changed",
        ),
        (lambda at: at.rename(at.with_name("000007")), "No such file or directory"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path: Path, harm: Callable[[Path], object], says: str) -> None:
    write_image(tmp_path, 1, image())
    harm(tmp_path / "000001")
    with pytest.raises(ToolError) as error:
        read_image(tmp_path, 1)
    assert says in str(error.value) and str(error.value).startswith(f"{tmp_path / '000001'}: ")
    assert "\n" not in str(error.value)


def test_a_renamed_image_is_noticed(tmp_path: Path) -> None:
    write_image(tmp_path, 1, image())
    (tmp_path / "000001").rename(tmp_path / "000007")
    with pytest.raises(ToolError, match="state.json was changed"):
        read_image(tmp_path, 7)


def test_no_image(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ToolError, match="name the folder of --checkpoint"):
            numbers(folder)


# Runs and images.


def go(settings: Settings, begin: Callable[[ProgramRun], None]) -> tuple[ProgramRun, bytes, int]:
    """A run to its end: itself, its output, its status."""
    out = io.BytesIO()
    with ProgramRun(settings, ModelWalker, stdin=None, stdout=out, stderr=io.BytesIO()) as running:
        begin(running)
        status = running.run()
        return running, out.getvalue(), status


def settings(folder: Path | None, track: str = "native", every: Every | None = None, **more: Any) -> Settings:
    every = every or Every("syscalls", 9)
    return Settings(PROFILES["linux-6.1"], Track[track.upper()], epoch=every, checkpoint=folder, seed=3, **more)


def check_all(folder: Path, command: list[str], chosen: Settings, *, some: int = 7) -> int:
    """Run with images, then restore some of them: output and memory go on as in the first run."""
    out = io.BytesIO()
    with ProgramRun(chosen, ModelWalker, stdin=None, stdout=out, stderr=io.BytesIO()) as first:
        first.start(command[0], command[1:])
        status = first.run()
    assert first.epochs is not None and first.epochs.as_json()["lost"] == 0
    there = numbers(folder)
    assert there == list(range(1, len(first.epochs.done) + 1))
    for number in there[:: max(1, len(there) // some)]:
        state = read_image(folder, number).state
        passed = next((one["passed"] for one in state["files"] if one["kind"] == "stream" and one["stream"] == 1), None)
        rest = io.BytesIO()
        again = Settings.from_json(state["settings"])
        with ProgramRun(again, ModelWalker, stdin=None, stdout=rest, stderr=io.BytesIO()) as second:
            second.restore(folder, number)
            assert second.run() == status
        told = rest.getvalue()
        assert told == out.getvalue()[passed:] if passed is not None else out.getvalue().endswith(told)
        assert second.epochs is not None and second.epochs.as_json()["lost"] == 0
        assert len(second.epochs.done) == len(first.epochs.done) - number
        if second.epochs.done:
            assert second.epochs.contents() == first.epochs.contents()
            assert second.epochs.done[-1].changed == first.epochs.done[-1].changed
    return len(there)


@pytest.mark.slow
@pytest.mark.parametrize("track", ["off", "fault", "native"])
def test_memory_goes_on(tmp_path: Path, program: Programs, track: str) -> None:
    """Heap, stack, shared memory, a child, handlers, code: from the middle of each."""
    assert check_all(tmp_path, [program("memory")], settings(tmp_path, track, Every("syscalls", 60)), some=1) >= 4


@pytest.mark.slow
def test_processes_pipes_and_files_go_on(tmp_path: Path, have: Have) -> None:
    chosen = settings(tmp_path, every=Every("syscalls", 41))
    assert check_all(tmp_path, [have("busybox"), "sh", "-c", SHELL], chosen, some=3) >= 4


@pytest.mark.slow
def test_a_process_that_waits_goes_on_waiting(tmp_path: Path, have: Have) -> None:
    """The signal of a child that ends interrupts the shell's wait4 as it would have: its frame is the same."""
    chosen = settings(tmp_path, every=Every("syscalls", 25))
    assert check_all(tmp_path, [have("busybox"), "sh", "-c", "echo 3 | sort | cat"], chosen, some=4) >= 4


@pytest.mark.slow
def test_a_dynamic_program_goes_on(tmp_path: Path, have: Have) -> None:
    query = "create table t(a, b); insert into t values (1, hex(7)), (2, random()); select count(b) from t;"
    chosen = settings(tmp_path, every=Every("syscalls", 17))
    assert check_all(tmp_path, [have("sqlite3"), ":memory:", query], chosen, some=3) > 3


@pytest.mark.slow
def test_later_images_hold_what_was_reported(tmp_path: Path, program: Programs) -> None:
    go(settings(tmp_path, every=Every("marker")), lambda running: running.start(program("dirty"), []))
    full, later = (len(read_image(tmp_path, number).pages) // PAGE_BYTES for number in (1, 2))
    assert full > 16 + 8 and 3 + 2 + 4 <= later <= 3 + 2 + 4 + 3


@pytest.mark.slow
def test_without_the_flush_after_a_clear_the_restored_run_differs(
    tmp_path: Path, have: Have, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What soft-dirty did not name is old in the image: the epoch check said so, and the program goes astray."""
    command = [have("busybox"), "sort", "-n", "/etc/services"]
    chosen = settings(tmp_path, every=Every("syscalls", 4))
    with monkeypatch.context() as patch:
        patch.setattr(ProgramMmu, "invalidate", lambda self, linear=None, pcid=0: None)
        first, right, _ = go(chosen, lambda running: running.start(command[0], command[1:]))
    assert first.epochs is not None and first.epochs.as_json()["lost"] > 0
    again = replace(chosen, checkpoint=None, seconds=10)
    try:
        _, told, _ = go(again, lambda running: running.restore(tmp_path, numbers(tmp_path)[-1]))
    except ToolError:
        return
    assert not told or not right.endswith(told)


@pytest.mark.slow
@pytest.mark.parametrize("track", ["off", "native"])
def test_killed_at_any_moment(tmp_path: Path, have: Have, track: str) -> None:
    """SIGKILL, wherever it hits, a save among them: the last whole image goes on to the same output."""
    rng = random.Random(f"kills {track}")
    command = ["run", "--backend", "model", "--seed", "3", "--track", track, "--epoch", "syscalls:30", "--checkpoint"]
    asked = ["--", have("busybox"), "sh", "-c", SHELL]
    program = [sys.executable, "-m", "ptewalk.cosim.cli.main"]
    began = time.monotonic()
    whole = subprocess.run([*program, *command, str(tmp_path / "whole"), *asked], capture_output=True, check=True)
    seconds = time.monotonic() - began
    for kill in range(2 if track == "native" else 1):
        folder = tmp_path / str(kill)
        running = subprocess.Popen(
            [*program, *command, str(folder), *asked], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        while not folder.is_dir() or not (folder / "000001").is_dir():
            time.sleep(0.02)
            if running.poll() is not None:
                break
        time.sleep(rng.random() * seconds / 2)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        last = numbers(folder)[-1]
        state = read_image(folder, last).state
        passed = next((one["passed"] for one in state["files"] if one["kind"] == "stream" and one["stream"] == 1), 0)
        ended = subprocess.run([*program, "restore", str(folder)], capture_output=True, check=True)
        assert ended.stdout == whole.stdout[passed:], f"kill {kill}, image {last}"


@pytest.mark.slow
def test_killed_inside_a_save(tmp_path: Path, have: Have) -> None:
    """The process ends right before an image is given its name: the one before is there, and goes on."""
    folder = tmp_path / "images"
    chosen = settings(folder, every=Every("syscalls", 30))
    command = [have("busybox"), "sh", "-c", SHELL]
    _, whole, _ = go(replace(chosen, checkpoint=None), lambda running: running.start(command[0], command[1:]))
    child = os.fork()
    if not child:
        rename = os.rename
        os.rename = lambda old, new: os._exit(9) if str(new).endswith("000004") else rename(old, new)  # type: ignore[assignment]
        go(chosen, lambda running: running.start(command[0], command[1:]))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert numbers(folder) == [1, 2, 3] and len(list(folder.iterdir())) == 4
    _, told, _ = go(replace(chosen, checkpoint=None), lambda running: running.restore(folder, 3))
    assert whole.endswith(told) and told


@pytest.mark.slow
def test_the_command(tmp_path: Path, have: Have, ptewalk: Command) -> None:
    busybox = have("busybox")
    folder = str(tmp_path / "images")
    asked = (
        "run",
        "--backend",
        "model",
        "--seed",
        "1",
        "--epoch",
        "syscalls:20",
        "--checkpoint",
        folder,
        "--every",
        "2",
    )
    code, printed, errors = ptewalk(*asked, "--", busybox, "sh", "-c", "echo one; echo two | cat; exit 3")
    assert (code, printed) == (0, "one\ntwo\n") and "images " in errors
    code, printed, errors = ptewalk("restore", "--epoch", "1", "--pass-status", folder)
    assert (code, printed) == (3, "two\n") and "backend model" in errors
    code, _, errors = ptewalk(*asked, "--", busybox, "true")
    assert code == 2 and "it is not empty; name another folder for --checkpoint" in errors
    code, _, errors = ptewalk("run", "--checkpoint", folder, "--", busybox, "true")
    assert code == 2 and "--checkpoint needs --epoch KIND" in errors
    code, _, errors = ptewalk("restore", "--epoch", "99", folder)
    assert code == 2 and "no image 99; there are 1 to" in errors
    shutil.copy(Path(folder, "000001", "pages.bin"), Path(folder, "000002", "pages.bin"))
    code, _, errors = ptewalk("restore", "--epoch", "2", folder)
    assert code == 2 and errors.count("\n") == 1 and "pages.bin is cut off or was changed" in errors


@pytest.mark.slow
def test_the_design_of_the_run_goes_on_or_another_one(tmp_path: Path, have: Have, ptewalk: Command) -> None:
    images, out = str(tmp_path / "images"), str(tmp_path / "out")
    asked = ("run", "--design", "mmu-small", "--seed", "1", "--epoch", "syscalls:8", "--every", "2", "--checkpoint")
    code, printed, _ = ptewalk(*asked, images, "--", have("busybox"), "sort", "-n", "/etc/services")
    assert code == 0 and read_image(Path(images), 1).state["settings"]["design"] == "mmu-small"
    said = {}
    for more in ((), ("--design", "mmu"), ("--backend", "model")):
        code, report, errors = ptewalk("restore", "--epoch", "1", "--json", "--stdout", out, *more, images)
        assert (code, Path(out).read_text()) == (0, printed), errors
        told = json.loads(report)
        said[more] = told["backend"], told.get("design"), told.get("hits", 0) > 0, told["lost"]
    assert list(said.values()) == [
        ("gateware", "mmu-small", True, 0),
        ("gateware", "mmu", True, 0),
        ("model", None, False, 0),
    ]
    code, _, errors = ptewalk("restore", "--backend", "model", "--design", "mmu", images)
    assert code == 2 and errors == "ptewalk: --design mmu is for --backend gateware\n"


@pytest.mark.thorough
def test_a_design_that_is_none_is_refused(tmp_path: Path, ptewalk: Command) -> None:
    said = settings(None).as_json() | {"backend": "gateware", "design": "mmu-huge"}
    write_image(tmp_path / "images", 1, Image({"settings": said}, b"", []))
    code, _, errors = ptewalk("restore", str(tmp_path / "images"))
    assert code == 2 and errors.count("\n") == 1 and "design 'mmu-huge' in image 1; give --design: mmu-un" in errors


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "lost"), [("linux-seed", 1), ("linux-3.11", 1), ("linux-6.1", 0)])
def test_a_kernel_that_forgets_a_store_makes_images_that_are_wrong(
    tmp_path: Path, program: Programs, profile: str, lost: int
) -> None:
    """At mprotect, with tracking off: the epoch check names the page, and the restored run reads what was there."""
    chosen = Settings(PROFILES[profile], Track.OFF, epoch=Every("marker"), checkpoint=tmp_path, seed=3)
    first, told, _ = go(chosen, lambda running: running.start(program("forget"), []))
    assert told == b"6\n" and first.epochs is not None
    assert [loss.epoch for loss in first.epochs.losses if loss.epoch > 1] == [2] * lost  # 1: the loader's mprotect
    _, told, _ = go(replace(chosen, checkpoint=None), lambda running: running.restore(tmp_path, 2))
    assert told == (b"5\n" if lost else b"6\n")
