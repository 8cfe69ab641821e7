"""The command line: what goes wrong is one line that names the thing and the mend, exit 2, and nothing written."""

import errno
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_whole
from ptewalk.cosim.cli import main as cli
from ptewalk.cosim.formats import samples as recordings
from ptewalk.cosim.simulate import doctor as cosim_doctor
from ptewalk.cosim.simulate.find import detect

WALKS = recordings.WALKS
SCENARIOS = recordings.KERNELS["linux-6.1"]
PROGRAM = Path(sys.executable).with_name("ptewalk")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in a folder of its own; (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptewalk", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        seen = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, seen.out, seen.err

    return go


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fails(run: Run, *arguments: str, says: str, mend: str) -> None:
    """The command ends with 2 and one line on standard error that holds `says` and `mend`; no file changes."""
    before = files(Path.cwd())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ptewalk: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert says in err
    assert mend in err
    assert files(Path.cwd()) == before


def simulators() -> set[str]:
    return {simulator.name for simulator in detect()}


# Bad use -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_unknown_option(run: Run, command: str) -> None:
    fails(run, command, "--no-such", says="No such option '--no-such'", mend=f"see 'ptewalk {command} --help'")


@pytest.mark.parametrize("command", ["doctor", "cosim", "cycles", "bench", "synth"])
def test_extra_argument(run: Run, command: str) -> None:
    fails(run, command, "extra", says="unexpected extra argument (extra)", mend=f"see 'ptewalk {command} --help'")


def test_unknown_command(run: Run) -> None:
    fails(run, "no-such", says="No such command 'no-such'", mend="see 'ptewalk --help'")


@pytest.mark.parametrize("command", ["walks", "record"])
def test_no_file_given(run: Run, command: str) -> None:
    fails(run, command, says="Missing argument 'FILE...'", mend=f"see 'ptewalk {command} --help'")


@pytest.mark.parametrize("arguments", [(), (str(SCENARIOS), "--generate", "2")])
def test_replay_of_nothing_and_of_both(run: Run, arguments: tuple[str, ...]) -> None:
    fails(run, "replay", *arguments, says="give either scenario files", mend="or --generate COUNT")


def test_no_output_given(run: Run) -> None:
    fails(run, "export", says="Missing option '--output'", mend="see 'ptewalk export --help'")


@pytest.mark.parametrize(
    "arguments",
    [("walks", str(WALKS)), ("replay", str(SCENARIOS)), ("cosim",), ("cycles",), ("bench",)],
    ids=lambda arguments: arguments[0],
)
def test_unknown_simulator(run: Run, arguments: tuple[str, ...]) -> None:
    fails(run, *arguments, "--simulator", "ghdl", says="'ghdl'", mend="not one of 'verilator', 'icarus'")


@pytest.mark.parametrize("command", ["walks", "replay"])
def test_unknown_backend(run: Run, command: str) -> None:
    file = str(WALKS if command == "walks" else SCENARIOS)
    fails(run, command, file, "--backend", "bochs", says="'bochs'", mend="not one of 'model', 'gateware'")


@pytest.mark.parametrize("backend", ["model", "unicorn"])
def test_simulator_of_a_backend_that_has_none(run: Run, backend: str) -> None:
    fails(
        run,
        *("walks", str(WALKS), "--backend", backend, "--simulator", "icarus"),
        says=f"not with --backend {backend}",
        mend="--simulator goes with --backend gateware",
    )


def test_replay_on_the_model_has_no_simulator(run: Run) -> None:
    fails(
        run,
        *("replay", str(SCENARIOS), "--simulator", "icarus"),
        says="not with --backend model",
        mend="--simulator goes with --backend gateware",
    )


@pytest.mark.parametrize(
    ("arguments", "says", "mend"),
    [
        (("replay", str(SCENARIOS), "--profile", "linux-9"), "no profile 'linux-9'", "choose one of linux-seed, "),
        (("replay", str(SCENARIOS), "--track", "maybe"), "'maybe'", "not one of 'off', 'fault', 'native'"),
        (("replay", str(SCENARIOS), "--name", "no-such"), "no scenario 'no-such'", "in the files given"),
        (("replay", str(SCENARIOS), "--picture", "no-such"), "no scenario 'no-such'", "in the files given"),
        (("replay", "--generate", "1", "--theme", "no-such"), "no theme 'no-such'", "choose one of "),
        (("prove", "no-such"), "no property 'no-such'", "choose one of walker-writes, walker-bound, "),
        (("synth", "--config", "no-such"), "no configuration 'no-such'", "choose one of walker, "),
        (("cosim", "--only", "no-such"), "'no-such'", "not one of 'recorded', 'random'"),
        (("cosim", "--seed", "-1"), "'--seed': -1", "0<=x"),
        (("cosim", "--seed", "abc"), "'--seed': 'abc'", "integer"),
        (("cosim", "--walks", "0"), "'--walks': 0", "x>=1"),
        (("walks", str(WALKS), "--limit", "0"), "'--limit': 0", "x>=1"),
        (("bench", "--walks", "5"), "'--walks': 5", "x>=1000"),
        (("synth", "--seed", "0"), "'--seed': 0", "1<=x"),
        (("export", "-o", "a.v", "--levels", "3"), "'3'", "not one of '4', '5'"),
        (("export", "-o", "a.v", "--physical-bits", "53"), "not 53", "physical_bits must be an integer from 32 to 52"),
        (("export", "-o", "a.v", "--tag-bits", "0"), "not 0", "tag_bits must be an integer from 1 to 32"),
    ],
    ids=lambda value: "-".join(value[:1] + value[-2:]) if isinstance(value, tuple) else "",
)
def test_bad_value(run: Run, arguments: tuple[str, ...], says: str, mend: str) -> None:
    fails(run, *arguments, says=says, mend=mend)


@pytest.mark.parametrize(
    "arguments",
    [("walks", str(WALKS)), ("replay", str(SCENARIOS)), ("cosim",), ("cycles",), ("bench",), ("prove",), ("export",)],
    ids=lambda arguments: arguments[0],
)
def test_unknown_mutant(run: Run, arguments: tuple[str, ...]) -> None:
    fails(run, *arguments, "--mutant", "no-such", says="no mutant 'no-such'; ", mend="in tests/mutants/: ")


def test_no_command_shows_the_help(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ptewalk")


def test_version_and_help(run: Run) -> None:
    assert run("--version")[:2] == (0, "ptewalk, version 0.1.0\n")
    code, out, _ = run("walks", "--help")
    assert code == 0 and "recorded page walks" in out


# Bad files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["walks", "replay"])
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


@pytest.mark.parametrize(("command", "wrong", "right"), [("walks", SCENARIOS, "replay"), ("replay", WALKS, "walks")])
def test_the_other_kind_of_file(run: Run, command: str, wrong: Path, right: str) -> None:
    fails(run, command, str(wrong), says=f"{wrong.name}:1: ", mend=f"give the file to ptewalk {right}")


def test_another_kernels_recording(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("replay", str(SCENARIOS), "--profile", "linux-3.11", "--output", str(tmp_path / "small.jsonl"))
    assert code == 1
    assert ": give --profile linux-6.1 or exact\n" in out


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


# Missing tools -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("cosim",), ("cycles",), ("bench",), ("walks", str(WALKS), "--backend", "gateware")],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    ("simulator", "says", "mend"),
    [
        ("icarus", "Icarus Verilog was not found", "apt-get install iverilog"),
        ("verilator", "Verilator needs g++ and make", "apt-get install g++ make"),
    ],
)
def test_missing_simulator(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], simulator: str, says: str, mend: str
) -> None:
    monkeypatch.delenv("PTEWALK_VERILATOR", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    code, out, err = run(*arguments, "--simulator", simulator)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"ptewalk: {says}") and last.endswith(f"mend: {mend}")
    assert not files(Path.cwd())


@pytest.mark.parametrize(
    "arguments",
    [("record", str(SCENARIOS), "--output", "out.jsonl"), ("replay", str(SCENARIOS), "--backend", "linux")],
    ids=lambda arguments: arguments[0],
)
def test_missing_qemu(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    fails(run, *arguments, says="qemu-system-x86_64 is not installed", mend="apt-get install qemu-system-x86")


def test_named_verilator_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEWALK_VERILATOR", "/nonexistent/verilator")
    fails(run, "cycles", says="PTEWALK_VERILATOR=/nonexistent/verilator", mend="unset PTEWALK_VERILATOR")


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog was not found")
def test_bench_needs_the_batch_level(run: Run, tmp_path: Path) -> None:
    code, out, err = run("bench", "--simulator", "icarus")
    assert (code, out) == (2, "")
    assert err.startswith("ptewalk: icarus") and "has no batch level" in err


# Differences ---------------------------------------------------------------------------------------------------------


def wrong_walks(path: Path, *, trust: int = 3, count: int = 40, wrong: int = 7) -> int:
    """Write `count` recorded walks; of one, the outcome is falsified. Its running number."""
    with gzip.open(WALKS, "rt") as stream:
        lines = [json.loads(next(stream)) for _ in range(count)]
    for line in lines:
        line["t"] = trust
    lines[wrong]["o"] = ["PF", 0x1234]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    number: int = lines[wrong]["i"]
    return number


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


# What --json gives ---------------------------------------------------------------------------------------------------


def objects(run: Run, *arguments: str) -> dict[str, Any]:
    """The one object that the command prints."""
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    result: dict[str, Any] = json.loads(out)
    return result


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


@pytest.mark.slow
def test_json_of_cycles(run: Run) -> None:
    rows = objects(run, "cycles")["rows"]
    assert all({"name", "latency", "cycles", "target"} <= row.keys() for row in rows)
    assert {row["name"] for row in rows} >= {"walk4", "walk5"}


@pytest.mark.slow
def test_json_of_bench(run: Run) -> None:
    """On a busy machine a speed may miss its target."""
    code, out, _ = run("bench", "--walks", "2000", "--seed", "1", "--json")
    rows = json.loads(out)["rows"]
    assert all({"name", "value", "unit", "baseline", "ratio", "target", "verdict"} == row.keys() for row in rows)
    assert {"replay linux-6.1", "pagemap linux-6.12: numpy", "/proc/PID/clear_refs linux-6.1"} <= {
        row["name"] for row in rows
    }
    assert code == any(row["verdict"] == "missed" for row in rows)


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), (None, 0), ("missed", 1)])
def test_a_target_that_is_missed_exits_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, verdict: str | None, code: int
) -> None:
    row = {"name": "a", "value": 1.0, "unit": "ns", "baseline": "b", "ratio": 2.0, "target": "<= 2", "verdict": verdict}
    monkeypatch.setattr("ptewalk.cosim.speed.measure.measure", lambda *_: [row])
    found, out, _ = run("bench", "--json", "--seed", "3")
    assert (found, json.loads(out)) == (code, {"rows": [row], "seed": 3})


@pytest.mark.slow
def test_json_of_prove(run: Run) -> None:
    result = objects(run, "prove", "fault-unit-drain")["fault-unit-drain"]
    assert {"result", "engine", "unbounded", "seconds"} <= result.keys()


@pytest.mark.slow
def test_json_of_synth(run: Run) -> None:
    result = objects(run, "synth", "--config", "walker")
    assert {"lut4", "ff", "fmax_mhz", "seed"} <= result.keys()
    assert result["lut4"] <= 900 and result["seed"] == 1


def test_export(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", "-o", "walker.v", "--physical-bits", "36", "--no-trace")
    assert (code, out) == (0, "walker.v: module ptewalk_walker\n")
    text = (tmp_path / "walker.v").read_text()
    assert "module ptewalk_walker(" in text and "o_walked" not in text
    assert "[35:0] memory__reads__payload__address" in text
    assert "// made by: ptewalk export --physical-bits 36 --no-trace\n" in text
    described = json.loads((tmp_path / "walker.json").read_text())
    assert (described["top"], described["parameters"]["physical_bits"]) == ("ptewalk_walker", 36)
    assert (tmp_path / "walker.vh").read_text().endswith("\n);\n")


def test_export_of_the_mmu_with_a_name(run: Run, tmp_path: Path) -> None:
    arguments = ("--design", "mmu", "--name", "my_mmu", "--fault-depth", "8", "--no-soft-dirty", "--levels", "4")
    code, out, _ = run("export", "-o", "m.v", *arguments)
    assert (code, out) == (0, "m.v: module my_mmu\n")
    text = (tmp_path / "m.v").read_text()
    assert "supervisor__faults__valid" in text and "ptewalk_mmu" not in text
    parameters = json.loads((tmp_path / "m.json").read_text())["parameters"]
    assert (parameters["levels"], parameters["soft_dirty"], parameters["fault_depth"]) == (4, False, 8)


def test_export_to_standard_output(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", "-o", "-")
    assert code == 0
    assert out.startswith("// ptewalk ") and "\nmodule ptewalk_walker(" in out
    code, out, _ = run("export", "-o", "-", "--json", "--design", "mmu")
    assert (code, json.loads(out)["top"]) == (0, "ptewalk_mmu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "no/such/b.v"), "there is no folder no/such"),
        (("-o", "b.v", "--name", "a b"), "name must be a Verilog identifier"),
        (("-o", "b.v", "--fault-depth", "8"), "--fault-depth is the MMU's"),
        (
            ("-o", "b.v", "--design", "mmu", "--tag-bits", "11"),
            "tag_bits of a fault unit must be an integer from 1 to 10",
        ),
    ],
)
def test_what_export_refuses(run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """One line, and nothing is written."""
    code, out, err = run("export", *arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# The program itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "code"), [(("walks", "missing.jsonl"), 2), (("--version",), 0)])
def test_exit_code_of_the_program(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run([str(PROGRAM), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
