"""The fields of a profile: each is read in the one file that its name begins with, and differs between two kernels."""

from __future__ import annotations

import ast
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
