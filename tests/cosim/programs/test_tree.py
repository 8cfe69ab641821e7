"""No path leads out of the root, and nothing is written outside the scratch folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.tree import Tree


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that is not to be reached."""
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Tree:
    """A root with links that lead out of it, if they are followed as the host does."""
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    (root / "etc").mkdir(parents=True)
    scratch.mkdir()
    (root / "etc" / "passwd").write_text("inside")
    (root / "absolute").symlink_to(outside)
    (root / "relative").symlink_to("../secret")
    (root / "etc" / "up").symlink_to("../../../../../../etc/passwd")
    (root / "everything").symlink_to("/")
    (root / "loop").symlink_to("loop")
    (root / "chain").symlink_to("everything/etc/up")
    return Tree(root, scratch, 10_000)


def name(error: pytest.ExceptionInfo[CallFails]) -> str:
    return str(error.value)


@pytest.mark.parametrize(
    "path", ["/absolute", "/relative", "relative", "/etc/../../secret", "/../secret", "../../secret"]
)
def test_ways_out_end_inside(tree: Tree, path: str) -> None:
    try:
        resolved = tree.resolve(b"/etc", path.encode())
    except CallFails as error:
        assert str(error) == "ENOENT"
        return
    assert tree.host(resolved) is None
    with pytest.raises(CallFails, match="ENOENT"):
        tree.open(resolved, os.O_RDONLY, 0)


@pytest.mark.parametrize("path", ["/etc/up", "/everything/etc/passwd", "/chain", "/everything/everything/etc/up", "up"])
def test_links_are_the_programs(tree: Tree, path: str) -> None:
    assert tree.resolve(b"/etc", path.encode()) == b"/etc/passwd"


def test_errors_of_paths(tree: Tree) -> None:
    for path, said in (
        ("/loop", "ELOOP"),
        ("/etc/passwd/x", "ENOTDIR"),
        ("/nowhere/x", "ENOENT"),
        ("", "ENOENT"),
        ("/" + "x" * 256, "ENAMETOOLONG"),
        ("/x" * 2100, "ENAMETOOLONG"),
    ):
        with pytest.raises(CallFails) as error:
            tree.resolve(b"/", path.encode())
        assert name(error) == said
    assert tree.resolve(b"/", b"/loop", follow=False) == b"/loop"


def test_a_write_is_a_copy(tree: Tree) -> None:
    handle = tree.open(b"/etc/passwd", os.O_RDWR, 0)
    os.write(handle, b"OUT")
    os.close(handle)
    root, scratch = Path(os.fsdecode(tree.root)), Path(os.fsdecode(tree.scratch))
    assert (root / "etc" / "passwd").read_text() == "inside"
    assert (scratch / "etc" / "passwd").read_text() == "OUTide"
    assert tree.host(b"/etc/passwd") == tree.scratch + b"/etc/passwd"


def test_links_that_the_program_makes_stay_inside(tree: Tree, outside: Path) -> None:
    tree.symlink(os.fsencode(outside), b"/mine")
    tree.symlink(b"../../../secret", b"/etc/mine")
    for path in (b"/mine", b"/etc/mine"):
        try:
            resolved = tree.resolve(b"/", path)
        except CallFails as error:
            assert str(error) == "ENOENT"
            continue
        os.close(tree.open(resolved, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        assert tree.host(resolved) == tree.scratch + resolved
    assert outside.read_text() == "secret"


def test_what_is_removed_is_gone_and_comes_back(tree: Tree) -> None:
    tree.remove(b"/etc/passwd", folder=False)
    assert tree.host(b"/etc/passwd") is None and tree.names(b"/etc") == [b"up"]
    with pytest.raises(CallFails, match="ENOTEMPTY"):
        tree.remove(b"/etc", folder=True)
    tree.remove(b"/etc/up", folder=False)
    tree.remove(b"/etc", folder=True)
    assert tree.host(b"/etc") is None and tree.host(b"/etc/up") is None
    tree.mkdir(b"/etc", 0o755)
    assert Path(os.fsdecode(tree.root), "etc", "passwd").exists()


def test_a_rename_leaves_the_root_as_it_is(tree: Tree) -> None:
    tree.rename(b"/etc/passwd", b"/moved")
    assert tree.host(b"/etc/passwd") is None
    assert Path(os.fsdecode(tree.scratch), "moved").read_text() == "inside"
    assert Path(os.fsdecode(tree.root), "etc", "passwd").exists()
    with pytest.raises(CallFails, match="EXDEV"):
        tree.rename(b"/etc", b"/other")


def test_the_limit(tree: Tree) -> None:
    tree.spend(9_000)
    with pytest.raises(CallFails, match="ENOSPC"):
        tree.spend(1_001)
    tree.spend(1_000)


def test_nothing_is_made_where_the_kernels_files_are(tree: Tree) -> None:
    for path in (b"/proc/x", b"/dev/x", b"/sys/x"):
        with pytest.raises(CallFails, match="EACCES"):
            tree.open(path, os.O_CREAT | os.O_WRONLY, 0o600)


@pytest.mark.slow
def test_a_program_that_tries(
    tmp_path: Path, outside: Path, have: Callable[[str], str], run: Callable[..., Any]
) -> None:
    """Every way that a shell has: each fails, or ends in the scratch folder, and the host's tree is as it was."""
    root, scratch = tmp_path / "jail", tmp_path / "kept"
    (root / "tmp").mkdir(parents=True)
    (root / "busybox").write_bytes(Path(have("busybox")).read_bytes())
    (root / "busybox").chmod(0o755)
    (root / "usr" / "bin").mkdir(parents=True)
    for applet in ("cat", "ls", "ln", "rm", "mv", "wget", "mount", "chroot", "ping"):
        (root / "usr" / "bin" / applet).symlink_to("/busybox")
    (root / "own").write_text("own")
    (root / "out").symlink_to(tmp_path)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    tries = [
        *("cat ../secret", f"cat {outside}", "cat out/secret", "cat /out/../secret"),
        *("cat /proc/1/environ", "cat /proc/self/mem", "ls /sys", "cat /proc/self/root/etc/passwd", "ls /dev/pts"),
        *(
            "cat /proc/self/fd/77",
            "cat /proc/self/cwd/../secret",
            "cat /etc/passwd",
            "chroot /",
            "mount",
            "ping -c1 127.0.0.1",
        ),
        *("ln -s ../../secret tmp/way; cat tmp/way", "rm ../secret", "mv ../secret tmp/x", "wget http://127.0.0.1/"),
    ]
    assert run(["/busybox", "sh", "-c", "cat own; cat ../own"], root=root, scratch=scratch).output == b"ownown"
    for what in tries:
        script = f'/busybox sh -c "{what}" > /dev/null 2>&1 && echo "BROKE OUT"; true'
        try:
            ended = run(["/busybox", "sh", "-c", script], root=root, scratch=scratch)
        except Exception as error:
            assert "is not there" in str(error), what
            continue
        assert ended.output == b"", what
    script = "echo new > ../secret; echo new > /own; echo new > tmp/x; cat /own ../secret"
    wrote = run(["/busybox", "sh", "-c", script], root=root, scratch=scratch)
    assert wrote.output == b"new\nnew\n"
    after = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert {path: data for path, data in after.items() if not path.is_relative_to(scratch)} == before
    assert (scratch / "secret").read_text() == "new\n"
