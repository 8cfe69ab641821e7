"""The verbs of a scenario as numbers."""

from __future__ import annotations

import re
import struct

import pytest

from ptewalk.cosim.formats.scenarios import Op
from ptewalk.cosim.oracles.linux.image import AGENT_SOURCE
from ptewalk.cosim.oracles.linux.operations import Operation, _Encoder, decode_value, encode_operation, errno_name
from ptewalk.model.scenario.verbs import VERBS

BASE = 0x1000_0000_0000


def test_every_verb_of_the_format_is_known() -> None:
    assert [name for name in VERBS if not callable(getattr(_Encoder, name, None))] == []


def test_the_agent_numbers_its_operations_alike() -> None:
    listed = re.search(r"OP_MMAP = 1.*?\}", AGENT_SOURCE.read_text("utf-8"), re.DOTALL)
    assert listed is not None
    names = re.findall(r"OP_([A-Z_]+)", listed.group())
    assert names == [operation.name for operation in sorted(Operation)] + ["SPIN"]


@pytest.mark.parametrize(
    ("op", "operation", "arguments"),
    [
        (
            {"op": "mmap", "page": 2, "n": 3, "prot": "rw", "kind": "anon"},
            Operation.MMAP,
            [BASE + 0x2000, 0x3000, 3, 0x32, -1, 0],
        ),
        (
            {
                "op": "mmap",
                "page": 0,
                "n": 1,
                "prot": "-",
                "kind": "s1",
                "file_page": 4,
                "flags": ["populate", "locked"],
            },
            Operation.MMAP,
            [BASE, 0x1000, 0, 0xA011, 1, 0x4000],
        ),
        (
            {"op": "mmap", "page": 0, "n": 512, "prot": "rx", "kind": "shugetlb", "flags": ["growsdown"]},
            Operation.MMAP,
            [BASE, 0x200000, 5, 0x40131 | 21 << 26, -1, 0],
        ),
        (
            {"op": "mremap", "page": 0, "n": 0, "new_n": 4, "flags": ["MAYMOVE", "FIXED", "DONTUNMAP"], "new_page": 16},
            Operation.MREMAP,
            [BASE, 0, 0x4000, 7, BASE + 0x10000],
        ),
        ({"op": "madvise", "page": 1, "n": 1, "advice": "COLLAPSE"}, Operation.MADVISE, [BASE + 0x1000, 0x1000, 25]),
        ({"op": "write", "page": 1, "n": 5, "step": 2}, Operation.WRITE, [BASE + 0x1000, 5, 2, 8]),
        ({"op": "file_write", "file": 0, "file_page": 1}, Operation.FILE_WRITE, [0, 0x1008, 8]),
        ({"op": "uffd_async_open", "page": None, "n": None}, Operation.UFFD_OPEN, [0, 0, 0xB000]),
        ({"op": "uffd_unwp", "page": 0, "n": 1}, Operation.UFFD_PROTECT, [BASE, 0x1000, 0]),
        (
            {"op": "pagemap_scan", "page": 0, "n": 2, "category_mask": 128, "max_pages": 1, "eb": 1, "fd": -1},
            Operation.PAGEMAP_SCAN,
            [96, 0, BASE, BASE + 0x2001, 0x5A5A5A5A5A5A5A5A, 0, 4096, 1, 0, 128, 0, 255, 1, 0],
        ),
    ],
)
def test_encode(op: Op, operation: Operation, arguments: list[int]) -> None:
    call = encode_operation({"who": 0, **op}, 7, BASE)
    assert (call.operation, call.arguments) == (operation, arguments)


def test_a_negative_number_is_a_large_one_to_the_kernel() -> None:
    op = {"who": 0, "op": "pagemap_scan", "page": 0, "n": -1, "max_pages": -1}
    packed = struct.unpack_from("<14Q", encode_operation(op, 0, BASE).pack())
    assert packed[2:4] == (BASE, BASE - 4096) and packed[7] == 2**64 - 1


def test_addresses_may_be_text() -> None:
    op = {"who": 0, "op": "pagemap_scan", "page": 0, "n": 1, "start": "0x2000", "end": "0x4000", "sb": -8}
    assert encode_operation(op, 0, BASE).arguments[2:4] == [0x2000 - 8, 0x4000]


def test_clear_refs_keeps_its_text() -> None:
    call = encode_operation({"who": 0, "op": "clear_refs", "value": "-4\n", "target": 2}, 0, BASE)
    assert (call.arguments, call.text) == ([2, 3], b"-4\n")
    assert len(call.pack()) == 14 * 8 + 64


def test_verbs_of_3_11() -> None:
    call = encode_operation({"who": 1, "op": "clearraw", "value": "4\\n\\0junk"}, 0, BASE)
    assert (call.operation, call.arguments, call.text) == (Operation.CLEAR_REFS, [1, 7], b"4\n\0junk")
    call = encode_operation({"who": 0, "op": "remapfile", "page": 1, "n": 2, "file_page": 9}, 0, BASE)
    assert (call.operation, call.arguments) == (Operation.REMAP_FILE, [BASE + 0x1000, 0x2000, 9])
    assert encode_operation({"who": 0, "op": "same", "page": 1, "n": 2}, 0, BASE).arguments == [BASE + 0x1000, 0x2000]
    assert encode_operation({"who": 0, "op": "sync", "file": "s4"}, 0, BASE).arguments == [4]
    for verb, operation in (("ksm", "KSM_SCAN"), ("swapoff", "SWAPOFF"), ("swapon", "SWAPON")):
        assert encode_operation({"who": 0, "op": verb}, 0, BASE).operation.name == operation


def test_values_and_errors() -> None:
    assert [decode_value(value) for value in (0, 255, 256, 257, 258, 259, 260, 517)] == [
        *(0, 255, "ok", "maperr", "accerr", "bus", "pkuerr", "e5")
    ]
    assert [errno_name(number) for number in (0, 12, 22)] == [None, "ENOMEM", "EINVAL"]
