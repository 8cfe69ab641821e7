"""What goes wrong is one line that names the thing and the mend, exit 2, and nothing is written: bad use, no tool."""

from pathlib import Path

import pytest

from ptewalk.cosim.cli import main as cli

from .program import SCENARIOS, WALKS, Run, fails, files, simulators

# Bad use --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(cli.commands.commands))
def test_unknown_option(run: Run, command: str) -> None:
    fails(run, command, "--no-such", says="No such option '--no-such'", mend=f"see 'ptewalk {command} --help'")


@pytest.mark.parametrize("command", ["doctor", "cosim", "cycles", "bench", "synth"])
def test_extra_argument(run: Run, command: str) -> None:
    fails(run, command, "extra", says="unexpected extra argument (extra)", mend=f"see 'ptewalk {command} --help'")


def test_unknown_command(run: Run) -> None:
    fails(run, "no-such", says="No such command 'no-such'", mend="see 'ptewalk --help'")


@pytest.mark.parametrize("command", ["walks", "scenarios"])
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
    fails(run, *arguments, "--simulator", "ghdl", says="'ghdl'", mend="not one of 'verilator', 'icarus', 'cxxrtl'")


@pytest.mark.parametrize(
    "arguments", [("waves", "--seed", "1"), ("bench", "--only", "cosim")], ids=lambda arguments: arguments[0]
)
def test_cxxrtl_where_cocotb_is_needed(run: Run, arguments: tuple[str, ...]) -> None:
    fails(
        run,
        *(*arguments, "--simulator", "cxxrtl"),
        says="CXXRTL has no cocotb, which this needs",
        mend="give --simulator verilator or icarus, or leave it out",
    )


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["engine", "log", "list"])
def test_a_part_that_does_not_run_on_a_simulator(run: Run, part: str) -> None:
    """And no result is left."""
    if "icarus" not in simulators():
        pytest.skip("icarus was not found")
    code, out, err = run("cosim", "--only", part, "--simulator", "icarus")
    last = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert last == f"ptewalk: icarus: nothing of {part} runs there; choose another --simulator or --only"
    assert not files(Path.cwd())


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


def test_designs_of_the_gateware_alone(run: Run) -> None:
    fails(
        run,
        *("walks", str(WALKS), "--design", "mmu-small"),
        says="not with --backend model",
        mend="--design goes with --backend gateware",
    )


@pytest.mark.parametrize("more", [(), ("--backend", "gateware"), ("--design", "mmu-small")])
def test_registers_of_a_unit_alone(run: Run, more: tuple[str, ...]) -> None:
    fails(
        run,
        *("replay", str(SCENARIOS), "--registers", *more),
        says="goes with --backend gateware" if "--design" not in more else "not with --backend model",
        mend="and a --design that caches, such as mmu-small" if "--design" not in more else "--design goes with",
    )


def test_a_design_with_caches_runs_on_verilator(run: Run) -> None:
    fails(
        run,
        *("walks", str(WALKS), "--backend", "gateware", "--design", "mmu-small", "--simulator", "icarus"),
        says="not on icarus",
        mend="leave out --simulator",
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
        (("cycles", "--latency", "0"), "'--latency': 0", "1<=x<=10000"),
        (("cycles", "--csv", "a.txt"), "a.txt: ", "name a file that ends in .csv"),
        (("cycles", "--plot", "a.png"), "a.png: ", "name a file that ends in .svg"),
        (("scenarios", str(SCENARIOS), "--verb", "no-such"), "no verb 'no-such'", "choose of clear_refs, "),
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


# Missing tools --------------------------------------------------------------------------------------------------------


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


@pytest.mark.thorough
@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog was not found")
def test_bench_needs_the_batch_level(run: Run, tmp_path: Path) -> None:
    code, out, err = run("bench", "--simulator", "icarus")
    assert (code, out) == (2, "")
    assert err.startswith("ptewalk: icarus") and "has no batch level" in err
