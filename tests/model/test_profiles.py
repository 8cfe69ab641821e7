"""The fields of a profile: each is read in the one file that its name begins with, and differs between two kernels.

`python -m tests.model.test_profiles CHECKOUT` counts, for any commit, in how many files each field is read.
"""

from __future__ import annotations

import ast
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ptewalk.model.profile import Profile
from ptewalk.model.profiles import PROFILES

MODEL = Path(__file__).resolve().parents[2] / "model"
FOR_EVERYBODY = {"name", "verbs"}
FIELDS = [field for field in Profile._fields if field not in FOR_EVERYBODY]
FILES = [path for path in sorted(MODEL.rglob("*.py")) if path.stem not in ("__init__", "profile", "profiles")]
ATTRIBUTES = {
    path: {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    for path in FILES
}


def read_in(source: str, fields: set[str]) -> set[str]:
    """The fields that a file reads, of whatever object."""
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)} & fields


def prefix_of(field: str) -> list[str]:
    """Files whose name the field's begins with, the longest first."""
    return sorted({path.stem for path in FILES if field.startswith(path.stem + "_")}, key=len, reverse=True)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_read_in_the_file_that_its_name_begins_with(field: str) -> None:
    readers = [path.stem for path, attributes in ATTRIBUTES.items() if field in attributes]
    assert readers == prefix_of(field)[:1]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_differs_between_two_kernels(field: str) -> None:
    assert len({getattr(profile, field) for profile in PROFILES.values()}) > 1


def readers(root: Path) -> dict[str, list[str]]:
    """Field to the files of model/ and cosim/ that read an attribute of its name: those that a change of it touches."""
    trees = {path: ast.parse(path.read_text()) for part in ("model", "cosim") for path in (root / part).rglob("*.py")}
    (profile,) = [
        node
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Profile"
    ]
    fields = [n.target.id for n in profile.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    read = {path: {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} for path, tree in trees.items()}
    return {
        field: sorted(str(path.relative_to(root)) for path in trees if field in read[path])
        for field in fields
        if field not in FOR_EVERYBODY
    }


@pytest.mark.thorough
def test_a_change_of_a_field_touches_one_file() -> None:
    """Beside profiles.py, which has its values."""
    assert {len(files) for files in readers(MODEL.parent).values()} == {1}


def differences(before: str, after: str) -> tuple[int, list[str]]:
    """The number of fields in which a kernel differs from the one before, and the files that read them."""
    changed = [field for field in FIELDS if getattr(PROFILES[before], field) != getattr(PROFILES[after], field)]
    return len(changed), sorted({prefix_of(field)[0] for field in changed})


def test_the_document_lists_the_files_of_each_kernel() -> None:
    rows = []
    for before, after in pairwise(PROFILES):
        count, files = differences(before, after)
        rows.append(f"| {after} | {before} | {count} | {len(files)}: {', '.join(files)} |")
    text = (MODEL.parent / "docs" / "adding.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| linux-")] == rows


@pytest.mark.thorough
def test_nothing_outside_the_model_asks_which_kernel_it_is() -> None:
    """But for the name, the verbs, and tests of the helpers of entries."""
    found = {
        (path.name, field)
        for path in (MODEL.parent / "cosim").rglob("*.py")
        for field in read_in(path.read_text(), set(FIELDS))
    }
    assert found == set()


def test_the_check_can_fail() -> None:
    assert read_in("def f(mm):\n    return mm.entries.profile.gup_marks_huge", set(FIELDS)) == {"gup_marks_huge"}
    assert prefix_of("gup_marks_huge") == ["gup"] and prefix_of("clear_refs_values") == ["clear_refs"]
    assert prefix_of("reuse_by_mapcount") == []


def test_every_field_is_explained() -> None:
    """A text stands behind each field in the class, or its type has one."""
    body = next(n for n in ast.parse((MODEL / "profile.py").read_text()).body if getattr(n, "name", "") == "Profile")
    assert isinstance(body, ast.ClassDef)
    told = {
        "pte_swap",
        "modify_merge",
        "thp_split_dirty",
        "mremap_table_move",
        "smaps_lines",
        "madvise_advices",
        "name",
    }
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id not in told:
            assert isinstance(following, ast.Expr), node.target.id


if __name__ == "__main__":
    for checkout in sys.argv[1:]:
        found = readers(Path(checkout))
        most = max(found, key=lambda field: len(found[field]))
        mean = sum(map(len, found.values())) / len(found)
        print(f"{checkout}: {len(found)} fields, read in {mean:.2f} files each, at most {len(found[most])} ({most})")
