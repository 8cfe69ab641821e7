"""The table of verbs: what is refused is refused by the reader, the model and the recorder with the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.oracles.linux.operations import ScenarioError, encode_all, encode_operation
from ptewalk.cosim.oracles.linux.recorder import read_requests
from ptewalk.model.linux import ADVICE
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.arguments import REQUIRED, OperationError
from ptewalk.model.scenario.format import FormatError, Scenario, Step, read
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import VERBS, Unsupported, arguments

Op = dict[str, Any]
BASE = 0x1000_0000_0000
KNOWN_ADVICE = ", ".join(ADVICE)
KINDS = "anon, sanon, hugetlb, shugetlb, hugetlb1g, p0, p1, p2, p3, p4, s0, s1, s2, s3, s4"
MMAP: Op = {"op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon"}
FORK: Op = {"op": "fork", "child": 1}
TEXT = 'a number of 64 bits, or a text such as "0x1000"'


def written(path: Path, ops: list[Op], steps: int | None = None) -> Path:
    """A scenario without answers."""
    head = {"t": "scenario", "name": "s", "base": hex(BASE), "steps": len(ops) if steps is None else steps}
    lines = [head, *({"t": "step", "name": "s", "i": i, "op": op} for i, op in enumerate(ops))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


REFUSED: list[tuple[list[Op], str]] = [
    ([{"op": "jump"}], f"unknown verb 'jump': choose one of {', '.join(VERBS)}"),
    ([{"op": "range"}], f"unknown verb 'range': choose one of {', '.join(VERBS)}"),
    ([{"op": "exit", "who": 16}], "'who' must be 0 to 15, not 16"),
    ([{"op": "exit", "who": "0"}], "'who' must be a whole number, not '0'"),
    ([MMAP | {"page": -1}], "'page' must be 0 to 17179869183, not -1"),
    ([MMAP | {"page": 1 << 40}], "'page' must be 0 to 17179869183, not 1099511627776"),
    ([MMAP | {"page": "7"}], "'page' must be a whole number, not '7'"),
    ([MMAP | {"page": True}], "'page' must be a whole number, not True"),
    ([MMAP | {"page": 0.5}], "'page' must be a whole number, not 0.5"),
    ([MMAP | {"page": None}], "mmap needs 'page': 0 to 17179869183"),
    ([MMAP | {"n": -1}], "'n' must be 0 to 17179869183, not -1"),
    ([MMAP | {"prot": "q"}], "'prot' must be made of r, w and x, or \"-\", not 'q'"),
    ([MMAP | {"prot": ""}], "'prot' must be made of r, w and x, or \"-\", not ''"),
    ([MMAP | {"prot": 3}], "'prot' must be made of r, w and x, or \"-\", not 3"),
    ([MMAP | {"kind": "anonymous"}], f"'kind' must be one of {KINDS}, not 'anonymous'"),
    ([MMAP | {"kind": "s5"}], f"'kind' must be one of {KINDS}, not 's5'"),
    ([MMAP | {"kind": ["anon"]}], f"'kind' must be one of {KINDS}, not ['anon']"),
    ([MMAP | {"flags": ["huge"]}], "'flags' must be a list of populate, locked, growsdown, noreserve, not of 'huge'"),
    ([MMAP | {"flags": [["x"]]}], "'flags' must be a list of populate, locked, growsdown, noreserve, not of ['x']"),
    ([MMAP | {"flags": "locked"}], "'flags' must be a list of populate, locked, growsdown, noreserve, not 'locked'"),
    ([MMAP | {"flag": []}], "mmap has no argument 'flag': it takes page, n, prot, kind, file_page, flags"),
    ([MMAP | {"n": 3758030849}], "'n' must be at most 1310720 pages (5 GiB) of one mapping, not 3758030849"),
    ([MMAP | {"page": (1 << 27) - 3}], "a mapping must end by page 134217728 (512 GiB), not at 134217729"),
    (
        [{"op": "mremap", "page": 0, "n": 1, "new_n": 1310721}],
        "'new_n' must be at most 1310720 pages (5 GiB) of one mapping, not 1310721",
    ),
    (
        [{"op": "mremap", "page": 0, "n": 1, "new_n": 1, "flags": ["MAYMOVE"], "new_page": 1 << 27}],
        "a mapping must end by page 134217728 (512 GiB), not at 134217729",
    ),
    (
        [{"op": "mremap", "page": 0, "n": 1, "new_n": 1, "flags": ["maymove"]}],
        "'flags' must be a list of MAYMOVE, FIXED, DONTUNMAP, not of 'maymove'",
    ),
    (
        [{"op": "madvise", "page": 0, "n": 1, "advice": "MADV_DONTNEED"}],
        f"'advice' must be one of {KNOWN_ADVICE}, not 'MADV_DONTNEED'",
    ),
    (
        [{"op": "madvise", "page": 0, "n": 1, "advice": "DONTNEDD"}],
        f"'advice' must be one of {KNOWN_ADVICE}, not 'DONTNEDD'",
    ),
    ([{"op": "madvise", "page": 0, "n": 1, "advice": 4}], f"'advice' must be one of {KNOWN_ADVICE}, not 4"),
    ([{"op": "madvise", "page": 0, "n": 1}], f"madvise needs 'advice': one of {KNOWN_ADVICE}"),
    ([{"op": "write", "page": 0, "n": 1, "step": 0}], "'step' must be 1 to 17179869183, not 0"),
    ([{"op": "write", "page": 0, "n": 262145}], "a step must have at most 262144 accesses, not 262145"),
    ([{"op": "mem_read", "page": 0, "n": 524290, "step": 2}], "a step must have at most 262144 accesses, not 262145"),
    ([{"op": "same", "page": 0, "n": 262145}], "a step must have at most 262144 accesses, not 262145"),
    ([{"op": "write", "page": 0, "n": 1, "value": 7}], "write has no argument 'value': it takes page, n, step"),
    ([{"op": "file_write", "file": "abc", "file_page": 0}], "'file' must be a file's number, 0 to 4, not 'abc'"),
    ([{"op": "file_read", "file": 5, "file_page": 0}], "'file' must be a file's number, 0 to 4, not 5"),
    ([{"op": "ftruncate", "file": "-1", "n": 0}], "'file' must be a file's number, 0 to 4, not '-1'"),
    ([{"op": "sync", "file": True}], "'file' must be a file's number, 0 to 4, not True"),
    ([{"op": "sync", "file": 1.0}], "'file' must be a file's number, 0 to 4, not 1.0"),
    ([{"op": "clear_refs", "value": "4" * 64}], "'value' must be text of at most 63 bytes, not of 64"),
    ([{"op": "clear_refs", "value": [4]}], "'value' must be text of at most 63 bytes, not [4]"),
    ([{"op": "clearraw"}], "clearraw needs 'value': text of at most 63 bytes"),
    ([{"op": "clear_refs", "value": "4", "target": 16}], "'target' must be 0 to 15, not 16"),
    ([{"op": "fork", "child": 0}], "'child' must be 1 to 15, not 0"),
    ([{"op": "fork", "child": 16}], "'child' must be 1 to 15, not 16"),
    ([{"op": "fork", "child": [1]}], "'child' must be a whole number, not [1]"),
    ([{"op": "exit", "page": 1}], "exit has no argument 'page': it takes no argument"),
    ([{"op": "wrpkru", "key": 16, "rights": 0}], "'key' must be 0 to 15, not 16"),
    ([{"op": "wrpkru", "key": 1, "rights": 4}], "'rights' must be 0 to 3, not 4"),
    ([{"op": "move_pages", "page": 0, "n": 65537, "node": 1}], "'n' must be 0 to 65536, not 65537"),
    ([{"op": "move_pages", "page": 0, "n": 1, "node": 2}], "'node' must be one of 0, 1, not 2"),
    ([{"op": "ksm_scan", "use_zero_pages": 2}], "'use_zero_pages' must be one of 0, 1, not 2"),
    ([{"op": "pagemap_scan", "page": 0, "n": 1, "start": "here"}], f"'start' must be {TEXT}, not 'here'"),
    ([{"op": "pagemap_scan", "page": 0, "n": 1, "end": 1 << 64}], f"'end' must be {TEXT}, not 18446744073709551616"),
    ([{"op": "pagemap_scan", "page": 0, "n": 1, "vec": True}], f"'vec' must be {TEXT}, not True"),
    (
        [{"op": "pagemap_scan", "page": 0, "n": 1, "category": 1}],
        "pagemap_scan has no argument 'category': it takes page, n, size, flags, vec_len, max_pages, "
        "category_inverted, category_mask, category_anyof_mask, return_mask, start, end, vec, sb, eb, fd",
    ),
    ([MMAP | {"who": 3}], "mmap: process 3 (who) does not live"),
    ([FORK, {"op": "exit", "who": 1}, FORK, FORK], "fork: process 1 (child) lives already"),
    ([{"op": "clear_refs", "value": "4", "target": 2}], "clear_refs: process 2 (target) does not live"),
    ([{"op": "exit"}, MMAP], "mmap: process 0 (who) does not live"),
]


@pytest.mark.parametrize(("ops", "text"), REFUSED, ids=[text[:60] for _, text in REFUSED])
def test_every_backend_refuses_alike(tmp_path: Path, ops: list[Op], text: str) -> None:
    ops = [{"who": 0} | op for op in ops]
    last = len(ops) - 1
    path = written(tmp_path / "s.jsonl", ops)
    with pytest.raises(FormatError) as read_error:
        read(path)
    assert str(read_error.value) == f"{path}:{last + 2}: {text}"
    if "has no argument" in text:  # what a recording says beyond its verb's arguments is left alone
        return
    with pytest.raises(ScenarioError) as encode_error:
        encode_all("s", ops, BASE)
    assert str(encode_error.value) == f"s step {last}: {text}"
    run = Replay(
        Scenario("s", "", BASE, [Step(i, op, None) for i, op in enumerate(ops)], "s", {}), PROFILES["linux-6.1"]
    )
    for _ in range(last):
        run.step()
    with pytest.raises(Unsupported) as model_error:
        run.step()
    assert str(model_error.value) == text


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-7.3"])
def test_what_mremap_puts_where_the_kernel_chose_is_refused(profile: str) -> None:
    """No two kernels choose alike, and the recorder reads the window alone."""
    new = {"who": 0, "op": "mremap", "page": 0, "n": 2, "new_n": 2, "flags": ["MAYMOVE", "DONTUNMAP"]}
    ops: list[Op] = [{"who": 0} | MMAP, new | {"new_page": 40}, new | {"page": 40, "new_page": 0}]
    run = Replay(Scenario("s", "", BASE, [Step(i, op, None) for i, op in enumerate(ops)], "s", {}), PROFILES[profile])
    run.step()
    assert run.step().ret == 40, "a free place is taken as it is told"
    with pytest.raises(Unsupported, match="^mremap put its pages where the kernel chose, outside"):
        run.step()


def test_a_verb_is_needed(tmp_path: Path) -> None:
    for op, text in (({"who": 0}, "unknown verb None"), ({"op": "exit"}, "exit needs 'who': 0 to 15")):
        with pytest.raises(FormatError, match=f":2: {text}"):
            read(written(tmp_path / "s.jsonl", [op]))


def test_a_recorded_step_may_say_more(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", [{"who": 0, "op": "setuid", "page": 0}])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] |= {"ret": 0, "errno": None, "vals": [], "state": {}}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path)[0].steps[0].op["page"] == 0


def test_a_misspelt_argument_is_refused_in_a_recorded_step_too(tmp_path: Path) -> None:
    """By the reader, and so for every backend; by the live kernel's encoder as well."""
    path = written(tmp_path / "s.jsonl", [{"who": 0, **MMAP}])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] |= {"ret": 0, "errno": None, "vals": [], "state": {}}
    lines[1]["op"] |= {"flag": None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path)[0].steps[0].given["flags"] == ()
    lines[1]["op"] |= {"flag": ["populate"]}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    wrong = r"mmap has no argument 'flag': it takes page, n, prot, kind, file_page, flags"
    with pytest.raises(FormatError, match=wrong):
        read(path)
    with pytest.raises(ScenarioError, match=wrong):
        encode_operation(lines[1]["op"], 0, BASE)


def test_a_fork_that_failed_left_no_child(tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", [{"who": 0} | FORK, {"who": 1, "op": "exit"}])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] |= {"ret": -1, "errno": "EAGAIN", "vals": [], "state": {}}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FormatError, match=r"exit: process 1 \(who\) does not live"):
        read(path)


@pytest.mark.parametrize(
    ("op", "filled"),
    [
        (MMAP, {"file_page": 0, "flags": ()}),
        ({"op": "mremap", "page": 0, "n": 1, "new_n": 2}, {"flags": (), "new_page": 0}),
        ({"op": "write", "page": 0, "n": 1}, {"step": 1}),
        ({"op": "unpin"}, {"page": None, "n": None}),
        ({"op": "clear_refs", "value": 4}, {"value": "4", "target": None}),
        ({"op": "clearraw", "text": "4\\n\\0\\t"}, {"value": "4\n\0\t"}),
        ({"op": "sync", "file": "s4"}, {"file": 4}),
        ({"op": "file_read", "file": "0", "file_page": 0}, {"file": 0}),
        ({"op": "ksm_scan"}, {"use_zero_pages": 0}),
        (
            {"op": "pagemap_scan", "page": 0, "n": -1, "start": "0x1000", "max_pages": -1, "sb": -8},
            {"start": 0x1000, "max_pages": (1 << 64) - 1, "sb": -8, "eb": 0, "fd": 0, "vec": None, "end": None}
            | {"size": 96, "vec_len": 4096, "return_mask": 255, "flags": 0, "category_mask": 0},
        ),
    ],
)
def test_defaults(op: Op, filled: dict[str, Any]) -> None:
    given = arguments({"who": 0} | op)
    assert {name: given[name] for name in filled} == filled


def test_what_a_reader_takes_every_backend_takes(tmp_path: Path) -> None:
    """The least that each verb needs, one by one."""
    examples: dict[str, Any] = {
        "page": 0,
        "n": 1,
        "prot": "rw",
        "kind": "anon",
        "new_n": 1,
        "advice": "NORMAL",
        "file": 0,
        "file_page": 0,
        "value": "4",
        "child": 1,
        "key": 1,
        "rights": 0,
        "node": 0,
    }
    for name, verb in VERBS.items():
        op = {"who": 0, "op": name} | {a.name: examples[a.name] for a in verb.arguments if a.default is REQUIRED}
        path = written(tmp_path / "s.jsonl", [op])
        (scenario,), (request,) = read(path), read_requests(path)
        assert len(encode_all(request.name, request.ops, request.base)) == 1
        Replay(scenario, PROFILES["linux-6.12"]).step()


def test_no_value_makes_a_reader_stumble() -> None:
    """Whatever JSON can hold, at every argument: taken, or refused with a line."""
    values: list[Any] = [None, True, 0, -1, 1 << 70, 0.5, float("nan"), "", "x", "\ud800", [], [[]], {}, {"a": 1}]
    refused = 0
    for name, verb in VERBS.items():
        for argument in verb.arguments:
            for value in values:
                try:
                    arguments({"who": 0, "op": name, argument.name: value})
                except OperationError as error:
                    refused += 1
                    assert "\n" not in str(error) and len(str(error)) < 700
    assert refused > 1000


@pytest.mark.parametrize("value", [None, [], {}, 3, "\ud800"])
def test_no_verb_makes_a_reader_stumble(value: Any) -> None:
    with pytest.raises(OperationError, match="unknown verb"):
        arguments({"who": 0, "op": value})


@pytest.mark.parametrize(("kind", "pages"), [("anon", 4), ("hugetlb", 512), ("hugetlb1g", 1 << 18)])
def test_same_fills_whole_pages(tmp_path: Path, kind: str, pages: int) -> None:
    ops = [MMAP | {"who": 0, "kind": kind, "n": pages}, {"who": 0, "op": "same", "page": pages - 2, "n": 3}]
    run = Replay(read(written(tmp_path / "a.jsonl", ops))[0], PROFILES["linux-6.1"])
    assert [run.step().errno for _ in ops] == [None, None]
    filled = [row for row in run.kernel.memory.words if (row == 0x5A5A5A5A5A5A5A5A).all()]
    assert len(filled) == 2, "the page behind the mapping is not there"
