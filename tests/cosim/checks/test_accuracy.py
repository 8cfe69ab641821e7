"""`ptewalk accuracy`: counts that can be made by hand, the profile `exact` against itself, and what docs/ quotes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.accuracy import KERNELS, Accuracy, accuracy, common_scenarios, count_scenario, spell
from ptewalk.cosim.formats.scenarios import ScenarioRequest, as_scenario, without_answers
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import LINUX_6_1, LINUX_6_12, LINUX_SEED, PROFILES

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("ptewalk")
DOCUMENT = Path(__file__).parents[3] / "docs" / "accuracy.md"
CLEAR = {"who": 0, "op": "clear_refs", "value": "4", "target": 0}


def mmap(page: int, n: int, **more: Any) -> dict[str, Any]:
    usual = {"who": 0, "op": "mmap", "prot": "rw", "kind": "anon", "file_page": 0, "flags": []}
    return usual | {"page": page, "n": n} | more


def on(page: int, n: int, verb: str, **more: Any) -> dict[str, Any]:
    return {"who": 0, "op": verb, "page": page, "n": n} | more


def counted(profile: Profile, *operations: dict[str, Any]) -> Accuracy:
    result = Accuracy(profile.name)
    count_scenario(as_scenario(ScenarioRequest("made", list(operations))), profile, result)
    return result


# By hand -------------------------------------------------------------------------------------------------------------


def test_pages_and_steps() -> None:
    found = counted(LINUX_6_1, mmap(0, 4), CLEAR, on(1, 2, "write"), on(0, 1, "munmap"))
    assert (found.scenarios, found.steps, found.skipped) == (1, 4, 0)
    assert found.pages == 4 + 4 + 4 + 3
    assert found.changed == 4 + 0 + 2 + 2
    assert (found.false_positives, found.false_negatives, found.lost_stores) == (0, 0, 0)


def test_the_seed_does_not_report_new_mappings() -> None:
    found = counted(LINUX_SEED, mmap(0, 4), on(0, 1, "write"))
    assert (found.false_negatives, found.lost_stores, found.verbs["false_negatives"]) == (4 + 3, 0, {"mmap": 4})
    assert counted(LINUX_6_1, mmap(0, 4), on(0, 1, "write")).false_negatives == 0


def test_the_seed_forgets_stores_at_mprotect() -> None:
    found = counted(LINUX_SEED, mmap(0, 2), on(0, 2, "write"), on(0, 1, "mprotect", prot="r"))
    assert (found.lost_stores, found.verbs["lost_stores"]) == (1, {"mprotect": 1})
    assert found.scenarios_with == {"false_positives": 0, "false_negatives": 1, "lost_stores": 1}


def test_a_merge_reports_the_neighbour() -> None:
    """VM_SOFTDIRTY of a new mapping spreads to the clean one it merges with."""
    found = counted(LINUX_6_1, mmap(0, 4), CLEAR, mmap(4, 1))
    assert (found.false_positives, found.verbs["false_positives"]) == (4, {"mmap": 4})


@pytest.mark.parametrize("profile", [LINUX_6_1, LINUX_6_12])
def test_a_merge_loses_a_store_to_a_shared_mapping(profile: Profile) -> None:
    """A new shared mapping is read; a merge takes VM_SOFTDIRTY away; the store that follows faults no more."""
    found = counted(
        profile,
        mmap(7, 1, kind="s0", file_page=7, prot="r"),
        CLEAR,
        mmap(5, 2, kind="s0", file_page=5),
        on(5, 1, "read"),
        on(7, 1, "mprotect", prot="rw"),
        on(5, 1, "write"),
    )
    assert (found.lost_stores, found.verbs["lost_stores"]) == (1, {"write": 1})


def test_hugetlb_is_not_tracked_by_page() -> None:
    found = counted(LINUX_6_1, mmap(0, 512, kind="hugetlb"), CLEAR, on(3, 1, "write"))
    assert (found.false_negatives, found.lost_stores) == (1, 0)


def test_what_the_model_cannot_follow() -> None:
    found = counted(LINUX_6_1, mmap(0, 4), {"who": 4, "op": "exit"}, CLEAR)
    assert (found.steps, found.skipped, found.pages) == (3, 2, 4)


# Over generated scenarios --------------------------------------------------------------------------------------------


def test_exact_agrees_with_itself() -> None:
    found = accuracy(common_scenarios(150, 1, [LINUX_6_1]), LINUX_6_1, exact=True)
    assert (found.false_positives, found.false_negatives, found.lost_stores) == (0, 0, 0)
    assert found.pages > found.changed > 1000
    assert found.shortest == {}


def test_kernels_are_asked_the_same() -> None:
    common = common_scenarios(200, 1, [LINUX_6_12, LINUX_SEED])
    assert common == common_scenarios(200, 1, [LINUX_SEED, LINUX_6_12])
    verbs = {step.op["op"] for scenario in common for step in scenario.steps}
    assert not any(verb.startswith(("uffd", "pin")) for verb in verbs)
    assert not verbs & {"remapfile", "same", "ksm", "swapoff", "sync", "clearraw"}, "only 3.11 is asked these"
    assert verbs > {"mmap", "mremap", "madvise", "fork", "clear_refs"}
    assert not any(scenario.name.startswith(("gigantic", "directory")) for scenario in common)
    with pytest.raises(ToolError, match="linux-seed does not know the operations of theme 'pin'"):
        common_scenarios(5, 1, [LINUX_6_12, LINUX_SEED], ("pin",))


@pytest.mark.parametrize("profile", KERNELS)
def test_the_shortest_scenario_shows_its_kind(profile: str) -> None:
    found = accuracy(common_scenarios(120, 1, [LINUX_SEED]), PROFILES[profile])
    assert {"false_positives", "false_negatives"} <= found.shortest.keys()
    for kind, lines in found.shortest.items():
        assert len(lines) - 1 <= 8
        assert kind in count_scenario(without_answers(lines), PROFILES[profile], Accuracy(profile))
    row = found.as_json()
    assert row["false_negative_percent"] == round(100 * found.false_negatives / found.changed, 3)
    assert row["false_positive_percent"] == round(100 * found.false_positives / (found.pages - found.changed), 3)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (mmap(4, 16), "mmap 4..19"),
        (mmap(0, 1, kind="s0", prot="r", flags=["populate", "locked"]), "mmap 0 prot=r kind=s0 flags=populate+locked"),
        (CLEAR, "clear_refs value=4"),
        (on(3, 2, "write", step=2) | {"who": 1}, "write 3..4 step=2 who=1"),
        ({"who": 0, "op": "fork", "child": 1}, "fork child=1"),
    ],
)
def test_spelling(operation: dict[str, Any], text: str) -> None:
    assert sorted(spell(operation).split()) == sorted(text.split())


# The command ---------------------------------------------------------------------------------------------------------


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), "accuracy", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=800
    )


def test_json_and_output(tmp_path: Path) -> None:
    arguments = ("--generate", "30", "--seed", "4", "--profile", "linux-6.1", "--profile", "linux-6.12")
    done = run(*arguments, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["profile"] for row in result["rows"]] == ["linux-6.1", "linux-6.12"]
    assert result["seed"] == 4
    assert not list(tmp_path.iterdir())
    again = run(*arguments, "--output", "result.json", folder=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert again.stdout.startswith("accuracy against exact, 30 scenarios, seed 4\n\n| kernel | pages |")
    assert all(row["profile"] in again.stdout for row in result["rows"])


def test_a_new_seed_is_printed(tmp_path: Path) -> None:
    first = json.loads(run("--generate", "3", "--json", folder=tmp_path).stdout)
    again = json.loads(run("--generate", "3", "--seed", str(first["seed"]), "--json", folder=tmp_path).stdout)
    assert again == first
    assert [row["profile"] for row in first["rows"]] == list(KERNELS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing option '--generate'"),
        (("--generate", "0"), "Invalid value for '--generate'"),
        (("--generate", "2", "--profile", "linux"), "no profile 'linux': choose one of linux-seed"),
        (("--generate", "2", "--theme", "pin"), "linux-seed does not know the operations of theme 'pin'"),
        (("--generate", "2", "--output", "/proc/none/x"), "/proc/none/x: "),
    ],
)
def test_bad_use(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ptewalk: {says}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_document_quotes_what_is_printed(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    command = re.search(r"ptewalk accuracy (--generate \d+ --seed \d+)", text)
    assert command is not None
    printed = run(*command[1].split(), folder=tmp_path).stdout.split("\n\n", 1)[1]
    assert printed in text
