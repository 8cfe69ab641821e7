"""`ptewalk record --generate`: the scenarios of `replay --generate`, and a hash over what was answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.files import write_lines
from ptewalk.cosim.checks import live
from ptewalk.cosim.formats.scenarios import ScenarioRequest, as_scenario, content_hash, load, scenario_lines
from ptewalk.cosim.oracles.linux import recorder
from ptewalk.cosim.oracles.linux.recorder import Recording
from ptewalk.cosim.stimulus.scenarios import generated
from ptewalk.model.profiles import PROFILES

from .program import Run, fails

Asked = list[tuple[str | None, list[ScenarioRequest]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What a recorder is asked that writes the scenarios as they are."""
    seen: Asked = []

    def record(requests: Sequence[ScenarioRequest], out: Path, *, kernel: str | None, **options: Any) -> Recording:
        seen.append((kernel, list(requests)))
        write_lines(out, [line for one in requests for line in scenario_lines(as_scenario(one))])
        return Recording("7.3.4", len(requests), sum(len(one.ops) for one in requests))

    monkeypatch.setattr(recorder, "record", record)
    return seen


@pytest.mark.parametrize(
    ("options", "kernel", "profile"),
    [
        (("--kernel", "7.2"), "7.2", "linux-7.2"),
        (("--profile", "linux-6.18"), "6.18", "linux-6.18"),
        ((), "6.1", "linux-6.1"),
        (("--kernel", "a/bzImage", "--profile", "linux-7.3"), "a/bzImage", "linux-7.3"),
    ],
)
def test_the_scenarios_are_those_of_the_seed(
    run: Run, asked: Asked, options: tuple[str, ...], kernel: str, profile: str
) -> None:
    code, out, _ = run("record", "--generate", "6", "--seed", "5", "--first", "2", *options, "-o", "a.jsonl", "--json")
    told = json.loads(out)
    drawn = [one.name for one in generated(6, 5, PROFILES[profile], (), first=2)]
    assert code == 0 and [(by, [one.name for one in requests]) for by, requests in asked] == [(kernel, drawn)]
    assert (told["seed"], told["profile"], told["scenarios"]) == (5, profile, 6)
    assert told["hash"] == content_hash(load([Path("a.jsonl")]))
    _, out, _ = run("scenarios", "a.jsonl", "--json")
    assert json.loads(out)["hashes"] == {"a.jsonl": told["hash"]}
    _, out, _ = run("scenarios", "a.jsonl")
    assert f"hash of a.jsonl: {told['hash']}" in out


def test_what_never_ends_is_left_out_and_named(run: Run, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    third = generated(3, 5, PROFILES["linux-7.3"], ("fork",))[2].name
    monkeypatch.setattr(live, "_unanswerable", lambda one, profile: "it goes on" if one.name == third else None)
    code, out, _ = run(
        "record", "--generate", "3", "--seed", "5", "--theme", "fork", "--profile", "linux-7.3", "-o", "b.jsonl"
    )
    assert code == 0 and f"no answer to {third}: it goes on" in out and ", seed 5, profile linux-7.3" in out
    assert len(asked[0][1]) == 2


@pytest.mark.parametrize(
    ("arguments", "says", "mend"),
    [
        ((), "give either scenario files", "or --generate COUNT"),
        (("--generate", "2", "FILE"), "give either scenario files", "or --generate COUNT"),
        (("FILE", "--theme", "fork"), "--theme, --seed, --first and --profile", "go with --generate"),
        (("FILE", "--seed", "1"), "--theme, --seed, --first and --profile", "go with --generate"),
        (("--generate", "2", "--profile", "linux-9"), "'linux-9'", "linux-7.3"),
    ],
)
def test_bad_use(run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str, mend: str) -> None:
    (tmp_path / "s.jsonl").write_text("")
    words = ["s.jsonl" if word == "FILE" else word for word in arguments]
    fails(run, "record", "-o", "out.jsonl", *words, says=says, mend=mend)
    assert not Path("out.jsonl").exists()
