"""Generated scenarios: what a kernel can run, checked with nothing recorded; the gateware in step with the model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.lane import BenchError, Status
from ptewalk.cosim.checks.scenarios import Check, ScenarioTally, Setup, fails, run_all, run_one
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import (
    ScenarioRequest,
    as_scenario,
    load,
    scenario_lines,
    scenario_text,
    without_answers,
)
from ptewalk.cosim.runs import scenarios as module
from ptewalk.cosim.runs.scenarios import check_scenarios
from ptewalk.cosim.stimulus.scenarios import generated
from ptewalk.cosim.stimulus.shrink import shrink
from ptewalk.cosim.stimulus.themes import THEMES, known_themes
from ptewalk.model.linux import Track
from ptewalk.model.mmu import ModelMmu
from ptewalk.model.paging import Request as Access
from ptewalk.model.paging import Result, State, Translated
from ptewalk.model.profiles import (
    LINUX_6_1,
    LINUX_6_12,
    LINUX_6_18,
    LINUX_7_2,
    LINUX_7_3,
    LINUX_SEED,
    MODERN,
    PROFILES,
)
from ptewalk.model.scenario.format import read

PROGRAM = Path(sys.executable).with_name("ptewalk")
TRACKING = (Track.FAULT, Track.NATIVE)
CLEAR = {"who": 0, "op": "clear_refs", "value": "4", "target": 0}
MMAP = {"who": 0, "op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon", "file_page": 0, "flags": []}
WRITE = {"who": 0, "op": "write", "page": 1, "n": 2, "step": 1}
MARKED = [MMAP, WRITE, CLEAR, WRITE]

# Which scenarios -----------------------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_scenarios() -> None:
    assert generated(50, 9, LINUX_6_1) == generated(50, 9, LINUX_6_1)
    assert generated(50, 9, LINUX_6_1) != generated(50, 10, LINUX_6_1)


def test_one_can_be_had_again_by_its_name() -> None:
    for scenario in generated(60, 9, LINUX_6_1):
        theme, seed, number = scenario.name.rsplit("_", 2)
        assert generated(1, int(seed), LINUX_6_1, (theme,), first=int(number)) == [scenario]


def test_no_two_seeds_share_a_scenario() -> None:
    one, other = ([[step.op for step in s.steps] for s in generated(300, seed, LINUX_6_1)] for seed in (1, 2))
    assert not [ops for ops in one if ops in other]


@pytest.mark.thorough
@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_kernel_is_asked_what_it_knows(profile: Any) -> None:
    verbs = {step.op["op"] for scenario in generated(400, 1, profile) for step in scenario.steps}
    assert ("uffd_wp" in verbs) == (profile in MODERN)
    assert ("pkey_mprotect" in verbs) == (profile in MODERN)
    assert ("pagemap_scan" in verbs) == (profile in MODERN and profile != LINUX_6_1)
    assert ("uffd_async_reg" in verbs) == (profile in MODERN and profile != LINUX_6_1)
    assert ("remapfile" in verbs) == (profile.name in ("linux-seed", "linux-3.11"))
    assert ("pin" in verbs) == (profile.name not in ("linux-seed", "linux-3.11"))
    assert {"mmap", "mremap", "fork", "clear_refs", "madvise"} <= verbs


def test_every_theme_takes_part() -> None:
    new = {name for name, theme in THEMES.items() if not theme.old_only} - {"guard"}
    assert set(known_themes(LINUX_6_12)) == new
    for profile in (LINUX_6_18, LINUX_7_2, LINUX_7_3):
        assert set(known_themes(profile)) == new | {"guard"}
    seen = [scenario.name.rsplit("_", 2)[0] for scenario in generated(500, 1, LINUX_6_12)]
    assert set(seen) == new
    assert {name for name in known_themes(LINUX_SEED) if THEMES[name].old_only} == set(THEMES) - new - {"guard"}
    assert seen.count("gigantic") * 10 < seen.count("merge")


def test_unknown_themes() -> None:
    with pytest.raises(ToolError, match="no theme 'nix': choose one of merge, "):
        generated(1, 1, LINUX_6_1, ("nix",))
    with pytest.raises(
        ToolError, match="linux-6.12 does not know the operations of theme 'guard': choose one of merge, "
    ):
        generated(1, 1, LINUX_6_12, ("guard",))
    with pytest.raises(
        ToolError, match="linux-seed does not know the operations of theme 'uffd': choose one of merge, "
    ):
        generated(1, 1, LINUX_SEED, ("anon", "uffd"))


def test_they_are_scenarios_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "generated.jsonl"
    scenarios = generated(200, 1, LINUX_6_12)
    path.write_text("".join(scenario_text(scenario_lines(scenario)) for scenario in scenarios))
    for made, found in zip(scenarios, read(path), strict=True):
        assert (found.name, found.doc, found.base) == (made.name, made.doc, made.base)
        assert [step.op for step in found.steps] == [step.op for step in made.steps]


def test_recorded_scenarios_become_lines_and_lose_their_answers() -> None:
    scenario = load([KERNELS["linux-6.1"]])[3]
    lines = scenario_lines(scenario)
    assert lines[1:] == [step.recorded for step in scenario.steps]
    bare = without_answers(lines)
    assert [step.op for step in bare.steps] == [step.op for step in scenario.steps]
    assert all(step.recorded is None for step in bare.steps)
    assert bare.control == scenario.control


# On the model --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("track", TRACKING)
def test_no_store_is_missed(profile: str, track: Track) -> None:
    result = run_all(generated(100, 1, PROFILES[profile]), Setup(PROFILES[profile], track))
    assert not result["differing"]
    assert result["agree"] + result["skipped"] == result["steps"]
    assert result["skipped"] <= 10  # the seed's swap entries that name other slots
    assert result["stored"] > 500


@pytest.mark.thorough
@pytest.mark.parametrize("track", Track)
def test_the_golden_model_in_step_with_itself(track: Track) -> None:
    result = run_all(generated(40, 3, LINUX_6_12), Setup(LINUX_6_12, track, mmu=ModelMmu))
    assert not result["differing"]
    assert result["agree"] == result["steps"]
    assert result["words"] > 500_000


def test_marks_that_the_kernel_drops_are_counted() -> None:
    """mprotect of the seed forgets soft-dirty: that is no fault of the MMU."""
    protect = {"who": 0, "op": "mprotect", "page": 0, "n": 4, "prot": "r"}
    result = run_all([as_scenario(ScenarioRequest("drop", [*MARKED, protect]))], Setup(LINUX_SEED, Track.NATIVE))
    assert (result["agree"], result["dropped"]) == (5, {"mprotect": 2})


class Forgetful(ModelMmu):
    """Marks like a plain MMU whatever TRACK says."""

    def run(self, state: State, requests: Sequence[Access]) -> list[Result]:
        return super().run(replace(state, track=Track.OFF), requests)


class Misled(ModelMmu):
    """Every page is the next one."""

    def run(self, state: State, requests: Sequence[Access]) -> list[Result]:
        return [
            replace(found, physical=found.physical ^ 0x1000) if isinstance(found, Translated) else found
            for found in super().run(state, requests)
        ]


class Broken(ModelMmu):
    """Breaks the rules of its ports."""

    def run(self, state: State, requests: Sequence[Access]) -> list[Result]:
        raise BenchError(Status.TIMEOUT, 0, 99)


def test_an_mmu_that_does_not_mark_is_caught() -> None:
    found = run_one(
        as_scenario(ScenarioRequest("m", MARKED)), setup := Setup(LINUX_6_1, Track.NATIVE, mmu=Forgetful), Check(setup)
    )
    assert found is not None
    assert found.step == 3
    assert "golden model's word" in found.field


def test_a_lost_store_is_caught_without_a_golden_model() -> None:
    setup = Setup(LINUX_6_1, Track.NATIVE, mmu=Forgetful)
    check = Check(setup)
    check._lockstep = None
    found = run_one(as_scenario(ScenarioRequest("m", MARKED)), setup, check)
    assert found is not None
    assert (found.step, found.field, found.captured) == (3, "pages[0][1]", "stored to, reads clean")


def test_an_mmu_that_leads_elsewhere_is_caught() -> None:
    result = run_all(generated(20, 1, LINUX_6_1), Setup(LINUX_6_1, Track.FAULT, mmu=Misled))
    assert len(result["differing"]) >= 15
    assert result["shrunk"][0]["steps"] <= 3


@pytest.mark.thorough
def test_what_differs_is_shrunk() -> None:
    setup = Setup(LINUX_6_1, Track.NATIVE, mmu=Forgetful)
    result = run_all(generated(30, 1, LINUX_6_1), setup)
    assert result["differ"] == len(result["differing"]) > 2
    verbs = [line["op"]["op"] for line in result["shrunk"][1:]]
    assert verbs in (["mmap", "write", "clear_refs", "write"], ["mmap", "clear_refs", "write"])
    assert fails(setup)(without_answers(result["shrunk"]))
    header, *steps = result["shrunk"]
    for k in range(len(steps)):
        assert not fails(setup)(without_answers([header, *steps[:k], *steps[k + 1 :]]))


def test_a_scenario_that_breaks_a_rule_is_shrunk() -> None:
    """A lane resets the gateware, so that the run goes on behind a broken rule, and candidates are tried."""
    result = run_all(generated(20, 1, LINUX_6_1), Setup(LINUX_6_1, Track.OFF, mmu=Broken))
    assert result["differ"] > 10
    assert "BenchError" in result["first_difference"]
    assert [line["op"]["op"] for line in result["shrunk"][1:]][-1] in ("write", "read", "syscall_read_into")
    assert len(result["shrunk"]) - 1 <= 2


def test_a_process_that_does_not_live_is_skipped() -> None:
    tally = ScenarioTally()
    setup = Setup(LINUX_6_1, Track.FAULT)
    assert (
        run_one(as_scenario(ScenarioRequest("gone", [MMAP, {**WRITE, "who": 3}, CLEAR])), setup, Check(setup), tally)
        is None
    )
    assert (tally.agree, tally.skipped, tally.skipped_scenarios) == (
        1,
        2,
        {"gone": "step 1: write: process 3 (who) does not live"},
    )


# Fewer than promised -------------------------------------------------------------------------------------------------


def test_nothing_to_compare_with() -> None:
    with pytest.raises(
        ToolError, match="no recording to compare with: give --backend gateware or linux, or, .* --track"
    ):
        check_scenarios(generated(2, 1, LINUX_6_1), "model", "linux-6.1", "off", True, None)
    with pytest.raises(ToolError, match="no recording to compare with"):
        check_scenarios(generated(2, 1, LINUX_6_1), "model", "linux-6.1", "native", False, None)


def test_fewer_steps_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios = generated(3, 1, LINUX_6_1)
    monkeypatch.setattr(module, "run_all", lambda some, setup: run_all(some[:2], setup))
    result = check_scenarios(scenarios, "model", "linux-6.1", "native", True, None)
    left = sum(len(scenario.steps) for scenario in scenarios[:2])
    assert result["missing"] == f"{left} steps of {left + len(scenarios[2].steps)} were run"


def test_a_simulator_that_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module,
        "check_on_gateware",
        lambda some, *asked, **how: run_all(some, Setup(LINUX_6_1, Track.OFF)) | {"events": 0},
    )
    result = check_scenarios(generated(3, 1, LINUX_6_1), "gateware", "linux-6.1", "off", True, None)
    assert result["missing"] == "no word of memory was compared; no access of the event log was compared"


# On the gateware -----------------------------------------------------------------------------------------------------


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=800
    )


@pytest.mark.slow
@pytest.mark.parametrize("track", [track.name.lower() for track in Track])
def test_eighty_on_the_gateware(track: str, tmp_path: Path) -> None:
    """A share: `make nightly` runs two thousand."""
    arguments = ("--generate", "80", "--seed", "1", "--track", track, "--simulator", "verilator")
    done = run("replay", *arguments, "--backend", "gateware", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["scenarios"], result["differ"], result["skipped"]) == (80, 0, 0)
    assert result["agree"] == result["steps"] > 600
    assert result["words"] > 400_000
    counters = result["counters"]
    assert counters["delivered_faults"] > 200
    assert (counters["marks"] > 20) == (track != "off")
    assert (counters["mends"] > 20) == (track == "fault")
    assert (result["stored"] > 400) == (track != "off")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["linux-seed", "linux-3.11", "linux-6.12"])
@pytest.mark.parametrize("track", ["fault", "native"])
def test_other_kernels_on_the_gateware(profile: str, track: str, tmp_path: Path) -> None:
    arguments = ("--generate", "150", "--seed", "5", "--profile", profile, "--track", track)
    done = run("replay", *arguments, "--backend", "gateware", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["scenarios"], result["differ"]) == (150, 0)
    assert result["counters"]["marks"] > 30


@pytest.mark.slow
def test_icarus(tmp_path: Path) -> None:
    from ptewalk.cosim.simulate.find import detect

    if "icarus" not in {simulator.name for simulator in detect()}:
        pytest.skip("Icarus Verilog was not found")
    arguments = ("--generate", "12", "--seed", "2", "--track", "fault", "--simulator", "icarus", "--theme", "move")
    done = run("replay", *arguments, "--backend", "gateware", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agree"] > 60


@pytest.mark.slow
@pytest.mark.parametrize(("mutant", "track"), [("mend-keeps-arm", "fault"), ("unmarked-write-granted", "native")])
def test_a_mutant_is_caught_and_its_scenario_shrunk(mutant: str, track: str, tmp_path: Path) -> None:
    arguments = ("--generate", "60", "--seed", "1", "--backend", "gateware", "--track", track, "--mutant", mutant)
    done = run("replay", *arguments, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    (left,) = tmp_path.glob("results/shrunk-*.jsonl")
    assert left.read_text() in done.stdout
    (scenario,) = read(left)
    assert [step.op["op"] for step in scenario.steps] == ["mmap", "clear_refs", "write"]
    repeat = re.search(r"^repeat: ptewalk (.*)$", done.stdout, re.MULTILINE)
    assert repeat is not None
    words = shlex.split(repeat[1])
    assert run(*words, folder=tmp_path).returncode == 1
    assert run(*words[: words.index("--mutant")], folder=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_recorded_scenario_that_differs_on_the_gateware_is_shrunk(tmp_path: Path) -> None:
    arguments = (str(KERNELS["linux-6.1"]), "--name", "h01_anon_basic", "--track", "fault", "--backend", "gateware")
    done = run("replay", *arguments, "--mutant", "mend-keeps-arm", "--json", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert [line["op"]["op"] for line in result["shrunk"][1:]] == ["mmap", "write", "clear_refs", "write"]
    assert run(*shlex.split(result["repeat"])[1:], folder=tmp_path).returncode == 1


def test_shrinking_needs_a_failure() -> None:
    with pytest.raises(ValueError, match="must fail"):
        shrink(as_scenario(ScenarioRequest("good", MARKED)), fails(Setup(LINUX_6_1, Track.NATIVE)))


# The command ---------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give either scenario files or --generate COUNT"),
        (("--generate", "3", str(KERNELS["linux-6.1"])), "give either scenario files or --generate COUNT"),
        (
            (str(KERNELS["linux-6.1"]), "--seed", "3"),
            "--seed goes with --generate or --backend gateware",
        ),
        ((str(KERNELS["linux-6.1"]), "--theme", "anon"), "--theme and --first go with --generate"),
        (("--generate", "3", "--name", "a"), "--name and --picture go with files, not with --generate"),
        (("--generate", "3"), "there is no recording to compare with: give --backend gateware or linux"),
        (("--generate", "3", "--profile", "linux"), "no profile 'linux': choose one of linux-seed"),
        (("--generate", "3", "--theme", "nix"), "no theme 'nix': choose one of merge"),
    ],
)
def test_bad_use(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = run("replay", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ptewalk: {says}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_the_seed_is_printed_and_accepted(tmp_path: Path) -> None:
    first = json.loads(run("replay", "--generate", "4", "--track", "native", "--json", folder=tmp_path).stdout)
    again = run(
        "replay", "--generate", "4", "--track", "native", "--json", "--seed", str(first["seed"]), folder=tmp_path
    )
    assert json.loads(again.stdout) == first


@pytest.mark.thorough
def test_files_without_answers(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_text(scenario_text(scenario_lines(as_scenario(ScenarioRequest("bare", MARKED)))))
    assert "no recording to compare with" in run("replay", str(path), folder=tmp_path).stderr
    done = run("replay", str(path), "--track", "fault", "--json", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["stored"]) == (0, 4)


@pytest.mark.thorough
def test_a_recorded_difference_is_left_as_a_file(tmp_path: Path) -> None:
    done = run("replay", str(KERNELS["linux-6.12"]), "--profile", "linux-6.1", folder=tmp_path)
    assert done.returncode == 1
    (left,) = tmp_path.glob("results/*")
    (scenario,) = read(left)
    first = re.search(rf"^differs: {scenario.name} step (\d+)", done.stdout, re.MULTILINE)
    assert first is not None
    assert len(scenario.steps) == int(first[1]) + 1
    repeat = f"repeat: ptewalk replay {left.relative_to(tmp_path)} --backend model --profile linux-6.1 --track off"
    assert repeat in done.stdout
    assert run(*shlex.split(repeat)[2:], "--output", "again.jsonl", folder=tmp_path).returncode == 1
    assert read(tmp_path / "again.jsonl")[0].header == scenario.header
