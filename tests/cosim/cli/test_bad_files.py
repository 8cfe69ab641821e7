"""Files that are missing, malformed or cut off, outputs that cannot be written: one line, exit 2, nothing written."""

import errno
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_whole
from ptewalk.cosim.simulate import doctor as cosim_doctor

from .program import SCENARIOS, WALKS, Run, fails, files


@pytest.mark.parametrize("command", ["walks", "replay", "scenarios"])
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("folder", ..., "is a directory"),
        ("other.txt", b"{}\n", ".jsonl or .jsonl.gz"),
        ("empty.jsonl", b"", "empty.jsonl"),
        ("empty.jsonl.gz", b"", "empty.jsonl.gz"),
        ("not.jsonl.gz", b"{}\n", "gz"),
        ("not.jsonl", b"hello\n", "not.jsonl:1"),
        ("list.jsonl", b"[]\n", "list.jsonl:1"),
        ("keys.jsonl", b'{"i": 1}\n', "keys.jsonl:1: "),
        ("binary.jsonl", b"\xff\xfe\n", "binary.jsonl:1"),
    ],
)
def test_bad_file(run: Run, tmp_path: Path, command: str, name: str, content: Any, says: str) -> None:
    if content is ...:
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    fails(run, command, name, says=says, mend=name)


@pytest.mark.parametrize(("command", "source"), [("walks", WALKS), ("replay", SCENARIOS)])
def test_cut_off(run: Run, tmp_path: Path, command: str, source: Path) -> None:
    """In the compressed data, and in the middle of a line."""
    (tmp_path / "cut.jsonl.gz").write_bytes(source.read_bytes()[:5000])
    fails(run, command, "cut.jsonl.gz", says="cut.jsonl.gz", mend="cut off")
    (tmp_path / "cut.jsonl").write_bytes(gzip.decompress(source.read_bytes())[:5003])
    fails(run, command, "cut.jsonl", says="cut.jsonl:", mend="")


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [("walks", SCENARIOS, "replay"), ("replay", WALKS, "walks"), ("scenarios", WALKS, "walks")],
)
def test_the_other_kind_of_file(run: Run, command: str, wrong: Path, right: str) -> None:
    fails(run, command, str(wrong), says=f"{wrong.name}:1: ", mend=f"give the file to ptewalk {right}")


def test_another_kernels_recording(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("replay", str(SCENARIOS), "--profile", "linux-3.11", "--output", str(tmp_path / "small.jsonl"))
    assert code == 1
    assert ": give --profile linux-6.1 or exact\n" in out


@pytest.mark.parametrize(
    "command",
    [
        ("replay", "--backend", "model"),
        ("replay", "--backend", "gateware"),
        ("replay", "--backend", "linux"),
        ("kernels", "--profile", "linux-7.3"),
        ("record", "--output", "out.jsonl"),
    ],
)
def test_other_sizes_of_huge_pages(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Refused by name before anything runs, whoever would answer."""
    line = {"t": "scenario", "name": "s", "base": "0x1000", "steps": 0, "thp_anon": "64K:always"}
    (tmp_path / "sizes.jsonl").write_text(json.dumps(line) + "\n")
    name, *options = command
    says = "sizes.jsonl:1: 'thp_anon' is '64K:always'"
    mend = "16K-64K:always alone is modelled: record it with that, or without"
    fails(run, name, "sizes.jsonl", *options, says=says, mend=mend)


@pytest.mark.parametrize("name", ["out", "out.txt", "out.jsonl.xz"])
def test_a_recording_that_could_not_be_read_again(run: Run, name: str) -> None:
    fails(run, "record", str(SCENARIOS), "-o", name, says=name, mend="ends in .jsonl or .jsonl.gz")


def test_one_bad_file_of_two(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    fails(run, "walks", str(WALKS), "bad.jsonl", says="bad.jsonl:1: ", mend="is missing")


@pytest.mark.parametrize(
    "arguments",
    [
        ("cosim", "--output"),
        ("export", "--output"),
        ("accuracy", "--generate", "1", "--output"),
        ("replay", str(SCENARIOS), "--output"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("name", ["file/below/out", "/proc/self/out"])
def test_output_that_cannot_be_written(run: Run, tmp_path: Path, arguments: tuple[str, ...], name: str) -> None:
    """Said before the work is done, not after it."""
    (tmp_path / "file").write_text("")
    fails(run, *arguments, name, says=name, mend="name a file in a folder that can be written")


@pytest.mark.parametrize(("option", "name"), [("--csv", "/proc/self/a.csv"), ("--plot", "file/below/a.svg")])
def test_tables_and_pictures_that_cannot_be_written(run: Run, tmp_path: Path, option: str, name: str) -> None:
    (tmp_path / "file").write_text("")
    fails(run, "cycles", option, name, says=name, mend="name a file in a folder that can be written")


def test_a_home_that_cannot_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/home/none")

    monkeypatch.setattr(cosim_doctor, "doctor", refused)
    fails(run, "doctor", says="/home/none: Permission denied", mend="must be writable")


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Where it goes wrong late: the name is a folder's."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ToolError, match=r"^\S+/out: .*; name a file in a folder that can be written$"):
        write_whole(tmp_path / "out", "text")
    assert not files(tmp_path)


def test_write_whole_makes_folders(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "out", "text")
    assert files(tmp_path) == {tmp_path / "a" / "b" / "out": b"text"}
