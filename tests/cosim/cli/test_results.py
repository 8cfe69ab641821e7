"""What a command gives: exit codes where something differs, what --json prints, the program itself."""

import json
import subprocess
from pathlib import Path

import pytest

from .program import PROGRAM, SCENARIOS, WALKS, Run, files, objects, wrong_walks

# Differences ----------------------------------------------------------------------------------------------------------


def test_a_difference_exits_with_1(run: Run, tmp_path: Path) -> None:
    number = wrong_walks(tmp_path / "wrong.jsonl")
    code, out, err = run("walks", "wrong.jsonl", "--json")
    assert (code, err) == (1, "")
    result = json.loads(out)
    assert (result["cases"], result["agree"], result["differ"]) == (40, 39, 1)
    assert result["first_difference"].startswith(f"case {number} (family ")
    assert "expected PF 0x1234, seen " in result["first_difference"]
    code, out, _ = run("walks", "wrong.jsonl")
    assert code == 1 and f"first difference: case {number} " in out


@pytest.mark.thorough
def test_a_difference_is_shown_where_nothing_can_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file stands in the way")
    code, out, err = run("replay", str(SCENARIOS), "--profile", "linux-3.11")
    assert code == 1
    assert "differs: " in out and "not written, the first one reduced:" in out and "repeat: with --output FILE" in out
    assert err.startswith("ptewalk: results/shrunk-") and "; name a file in a folder that can be written" in err
    code, out, err = run("replay", str(SCENARIOS), "--profile", "linux-3.11", "--json")
    assert code == 1
    result = json.loads(out)
    assert result["differ"] > 0 and result["shrunk"] and result["shrunk_file"] is None


def test_nothing_compared_is_no_success(run: Run, tmp_path: Path) -> None:
    wrong_walks(tmp_path / "doubtful.jsonl", trust=1)
    code, out, err = run("walks", "doubtful.jsonl", "--json")
    assert code == 2
    assert json.loads(out)["other_trust"] == {"1": {"cases": 40, "agree": 39, "differ": 1, "skipped": 0}}
    assert err.startswith("ptewalk: no case was compared: ")


# What --json gives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["model", "unicorn"])
def test_json_of_walks(run: Run, backend: str) -> None:
    result = objects(run, "walks", str(WALKS), "--backend", backend, "--limit", "60")
    assert {"cases", "agree", "differ", "skipped", "first_difference"} <= result.keys()
    assert result["cases"] == 60 == result["agree"] + result["skipped"]
    assert (result["differ"], result["first_difference"]) == (0, None)


def test_several_files_are_added_up(run: Run, tmp_path: Path) -> None:
    wrong_walks(tmp_path / "wrong.jsonl")
    _, out, _ = run("walks", str(WALKS), "wrong.jsonl", "--limit", "30", "--json")
    result = json.loads(out)
    assert result["cases"] == 60 == result["agree"] + result["differ"]


def test_json_of_replay(run: Run) -> None:
    result = objects(run, "replay", str(SCENARIOS), "--name", "h01_anon_basic")
    assert {"scenarios", "steps", "agree", "differ", "skipped", "first_difference"} <= result.keys()
    assert result["scenarios"] == 1 and result["agree"] > 0 and result["differ"] == 0


def test_scenarios_of_a_file(run: Run) -> None:
    """Name, profiles, steps, answers and verbs of each, as text and as JSON."""
    code, out, _ = run("scenarios", str(SCENARIOS))
    assert code == 0
    assert "h01_anon_basic" in out and "linux-6.1, exact" in out and "write 2, clear_refs 2, mmap, read" in out
    listed = objects(run, "scenarios", str(SCENARIOS))["scenarios"]
    assert out.splitlines()[-1].endswith(f": {len(listed)} scenarios, {sum(one['steps'] for one in listed)} steps")
    first = next(one for one in listed if one["name"] == "h01_anon_basic")
    assert (first["steps"], first["answers"], first["levels"]) == (6, 6, 4)
    assert first["profiles"] == ["linux-6.1", "exact"] and first["kernel"].startswith("6.1.")
    assert first["verbs"] == {"write": 2, "clear_refs": 2, "mmap": 1, "read": 1}
    both = objects(run, "scenarios", str(SCENARIOS), "--verb", "fork", "--verb", "mremap")["scenarios"]
    assert 0 < len(both) < len(listed) and all({"fork", "mremap"} <= one["verbs"].keys() for one in both)


def test_scenarios_without_answers_name_no_kernel(run: Run, tmp_path: Path) -> None:
    line = {"t": "scenario", "name": "a", "doc": "", "base": "0x100000000000", "steps": 1, "cr0": "80050033"}
    line |= {"cr4": "751ef0", "efer": "d01"}
    step = {"t": "step", "name": "a", "i": 0, "op": {"who": 0, "op": "clear_refs", "value": "4"}}
    (tmp_path / "own.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(step)}\n")
    (one,) = objects(run, "scenarios", "own.jsonl")["scenarios"]
    assert (one["file"], one["kernel"], one["profiles"]) == ("own.jsonl", None, None)
    assert (one["answers"], one["levels"]) == (0, 5)


def test_json_of_doctor(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    rows = json.loads(out)["rows"]
    assert code == (0 if all(row["ok"] for row in rows) else 1)
    assert all({"thing", "found", "version", "chosen", "mend", "ok"} <= row.keys() for row in rows)


@pytest.mark.slow
def test_json_of_cosim(run: Run, tmp_path: Path) -> None:
    arguments = ("cosim", "--only", "random", "--walks", "300", "--seed", "5", "--simulator", "verilator")
    result = objects(run, *arguments)
    assert {"comparisons", "mismatches", "simulator", "seed"} <= result.keys()
    assert result["seed"] == 5 and result["comparisons"] >= 300 and result["mismatches"] == 0
    assert json.loads((tmp_path / "results" / "cosim.json").read_text()) == result
    # A second run keeps the first one's result, unless it is told where to write.
    code, out, err = run(*arguments, "--json")
    assert (code, json.loads(out)["seed"]) == (0, 5)
    assert "results/cosim.json of an earlier run is now results/cosim-1.json" in err
    assert json.loads((tmp_path / "results" / "cosim-1.json").read_text()) == result
    assert run(*arguments, "--output", "results/cosim.json")[0] == 0
    assert len(files(tmp_path)) == 2


@pytest.mark.slow
def test_json_of_cycles(run: Run) -> None:
    rows = objects(run, "cycles")["rows"]
    assert all({"name", "latency", "cycles", "target"} <= row.keys() for row in rows)
    assert {row["name"] for row in rows} >= {"walk4", "walk5"}
    assert {row["latency"] for row in rows} == {1, 4, 16, 40}


@pytest.mark.slow
def test_cycles_at_other_latencies_as_csv_and_picture(run: Run, tmp_path: Path) -> None:
    arguments = ("--latency", "9", "--latency", "2", "--csv", "out/c.csv", "--plot", "out/c.svg")
    rows = objects(run, "cycles", *arguments)["rows"]
    assert [(row["latency"], row["cycles"]) for row in rows if row["name"] == "walk4"] == [(9, 38), (2, 10)]
    lines = (tmp_path / "out" / "c.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) and "walk4,9,38,38,38,OK,0," in lines
    assert "<title>walk4, latency 9: 38 cycles</title>" in (tmp_path / "out" / "c.svg").read_text()


@pytest.mark.slow
def test_json_of_bench(run: Run) -> None:
    """On a busy machine a speed may miss its target. Nightly runs the whole command."""
    code, out, _ = run("bench", "--only", "replay", "--only", "translate", "--seed", "1", "--json")
    rows = json.loads(out)["rows"]
    assert all({"name", "value", "unit", "baseline", "ratio", "target", "verdict"} == row.keys() for row in rows)
    assert {"replay linux-6.1", "translation at once: numpy"} <= {row["name"] for row in rows}
    assert code == any(row["verdict"] == "missed" for row in rows)


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), (None, 0), ("missed", 1)])
def test_a_target_that_is_missed_exits_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, verdict: str | None, code: int
) -> None:
    row = {"name": "a", "value": 1.0, "unit": "ns", "baseline": "b", "ratio": 2.0, "target": "<= 2", "verdict": verdict}
    monkeypatch.setattr("ptewalk.cosim.speed.measure.measure", lambda *_, **__: [row])
    found, out, _ = run("bench", "--json", "--seed", "3")
    assert (found, json.loads(out)) == (code, {"rows": [row], "seed": 3})


@pytest.mark.slow
def test_json_of_prove(run: Run) -> None:
    result = objects(run, "prove", "pcid-slots")["pcid-slots"]
    assert {"result", "engine", "unbounded", "seconds"} <= result.keys()


@pytest.mark.slow
def test_json_of_synth(run: Run) -> None:
    result = objects(run, "synth", "--config", "walker")
    assert {"lut4", "ff", "fmax_mhz", "seed"} <= result.keys()
    assert result["lut4"] <= 900 and result["seed"] == 1


# The program itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "code"), [(("walks", "missing.jsonl"), 2), (("--version",), 0)])
def test_exit_code_of_the_program(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run([str(PROGRAM), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
