"""docs/rules.md has one index of its rules by kernel, and it says what the rules say."""

from __future__ import annotations

import re
from pathlib import Path

RULES = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()


def marks(body: str) -> list[str]:
    """The kernels that a rule names for itself: *in italics*."""
    found = re.findall(r"(?<!\*)\*([^*`]+?)\*(?!\*)", body.split("\n\n")[0])
    return [" ".join(mark.split()).rstrip(".,") for mark in found]


def index(text: str) -> list[str]:
    """The rows of the index: which kernels, and the numbers of the rules that name them."""
    parts = re.split(r"\n- \*\*(\d+)\.\*\* ", text)
    rows: dict[str, list[int]] = {}
    for number, body in zip(parts[1::2], parts[2::2], strict=True):
        found = dict.fromkeys(mark[:1].lower() + mark[1:] for mark in marks(body))
        assert found, f"rule {number} names no kernel"
        for mark in found:
            rows.setdefault(mark, []).append(int(number))
    assert sum(map(len, rows.values())) > 160
    return [f"| {mark} | {', '.join(map(str, sorted(numbers)))} |" for mark, numbers in rows.items()]


def test_the_index_says_what_the_rules_say() -> None:
    head = RULES.index("| kernels | rules |")
    assert RULES[head:].split("\n\n")[0].splitlines()[2:] == index(RULES)


def test_a_rule_that_changes_its_kernels_is_noticed() -> None:
    assert index(RULES.replace("*Newest* (6.13).", "*Modern.*", 1)) != index(RULES)
