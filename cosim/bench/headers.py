"""The headers of the compiled lane, made at each build: records.h of the numpy types, pins.h of the design."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench import records
from ptewalk.cosim.bench.conditions import Counters
from ptewalk.model.x86 import Access, Outcome
from ptewalk.rtl.description import DesignDescription, StreamDescription

__all__ = [
    "BATCH",
    "COUNTERS",
    "STREAMS",
    "lane_files",
    "log_accessors",
    "pins_header",
    "records_header",
    "stream_accessors",
    "structures",
    "wide_accessors",
]

_SOURCE: Final = Path(__file__).with_name("lane.cpp")
_WORDS: Final = Path(__file__).with_name("words.h")
_CLOCK: Final = Path(__file__).with_name("clock.h")

BATCH: Final = np.dtype(
    [
        # Arrays, as addresses: what is asked, what is written there (translations: 0 when not wanted), and the memory.
        *(
            (name, np.uint64)
            for name in ("requests", "accepted_requests", "responses", "translations", "interferences")
        ),
        *((name, np.uint64) for name in ("keys", "rows", "words")),
        *((name, np.uint64) for name in ("request_count", "interference_count", "key_bits", "frame_limit")),
        ("absent_is_zero", np.uint64),  # frames below the limit that have no row: 1 read as 0, 0 bus error
        *((name, np.uint64) for name in ("latency", "latency_spread", "retirement_spread", "max_cycles", "linger")),
        *((name, np.uint64) for name in ("stop_on_fault", "seed")),
        ("thresholds", np.uint64, (len(records.Channel),)),
        # Out.
        *((name, np.uint64) for name in ("status", "accepted", "response_count", "translation_count")),
        *((name, np.uint64) for name in ("events", "event_count", "faults", "fault_count")),
        *((name, np.uint64) for name in ("written", "written_count", "walked", "walked_count")),
        *((counter.name, np.uint64) for counter in fields(Counters)),
    ],
    align=True,
)
"""One call of the compiled lane."""

_STRUCTURES: Final = {
    "Request": records.REQUEST,
    "Response": records.RESPONSE,
    "Translation": records.TRANSLATION,
    "Interference": records.INTERFERENCE,
    "Event": records.EVENT,
    "Fault": records.FAULT,
    "Written": records.WRITTEN,
    "Walked": records.WALKED,
    "Batch": BATCH,
}
_NUMBERS: Final[dict[str, type[IntEnum]]] = {
    "Access": Access,
    "Channel": records.Channel,
    "Kind": records.EventKind,
    "Outcome": Outcome,
    "Status": records.Status,
}
STREAMS: Final[dict[str, tuple[str, ...]]] = {
    "contexts": tuple(name for name, _, _ in records.CONTEXT_INPUTS),
    "requests": ("linear", "access", "user", "implicit", "ac", "tag"),
    "responses": tuple(name for name in records.RESPONSE.names or () if name != "cycles"),
    "reads": ("address", "id"),
    "data": ("value", "error", "id"),
    "swaps": ("address", "old", "new", "id"),
    "swapped": ("done", "error", "id"),
    "faults": tuple(records.FAULT.names or ()),
    "retired": ("tag",),
    "written": tuple(records.WRITTEN.names or ()),
    "walked": tuple(records.WALKED.names or ()),
    "invalidations": ("kind", "linear", "pcid", "wait"),
    "completions": ("wait",),
}
"""Role of each stream that a testbench knows to the fields that it knows."""
GROUPS: Final[dict[str, tuple[str, ...]]] = {"translation": tuple(records.TRANSLATION.names or ())}
"""Role of each plain struct that a testbench samples to the fields that it knows."""
COUNTERS: Final = ("marks", "mends", "delivered_faults", "lost_faults")
"""Roles of the gateware's counters."""
_PINS: Final = (*COUNTERS, "hits", "overtaken", "replays", "wraps", "drain", "drained", "walker")
_RESERVED: Final = {"new": "new_"}
"""Field to its name in C++, where that is a keyword."""


def _c(name: str) -> str:
    return _RESERVED.get(name, name)


def structures(kinds: Mapping[str, np.dtype[np.void]]) -> list[str]:
    """Lines of C++ for numpy record types by their names there, with every place checked."""
    lines = []
    for name, dtype in kinds.items():
        checks = [f"static_assert(sizeof({name}) == {dtype.itemsize});"]
        lines.append(f"struct {name} {{")
        places: Mapping[str, tuple[Any, ...]] = dtype.fields or {}
        for field, (kind, offset) in ((field, places[field][:2]) for field in dtype.names or ()):
            array = f"[{kind.shape[0]}]" if kind.shape else ""
            lines.append(f"    uint{8 * kind.base.itemsize}_t {_c(field)}{array};")
            checks.append(f"static_assert(offsetof({name}, {_c(field)}) == {offset});")
        lines += ["};", *checks, ""]
    return lines


def records_header() -> str:
    """The structures and numbers that Python and the compiled lane share, with their places checked."""
    lines = ["// Made by cosim/bench/headers.py of the numpy types in cosim/bench/records.py.", "#pragma once"]
    lines += ["#include <cstddef>", "#include <cstdint>", "", *structures(_STRUCTURES)]
    for name, numbers in _NUMBERS.items():
        values = ", ".join(f"{member.name} = {member.value}" for member in numbers)
        lines.append(f"namespace {name} {{ enum : uint32_t {{ {values} }}; }}")
    lines.append(f"constexpr unsigned CHANNELS = {len(records.Channel)};")
    return "\n".join([*lines, ""])


def check_known(design: DesignDescription) -> None:
    """`ToolError` when a stream that the testbench drives or watches has a field that no record has."""
    streams = ((role, known, design.stream(role)) for role, known in STREAMS.items())
    there = [(found.path, known, found.fields) for _, known, found in streams if found is not None]
    there += [(role, known, design.group(role)) for role, known in GROUPS.items()]
    for path, known, fields_there in there:
        for field in fields_there:
            if field not in known:
                raise ToolError(
                    f"{design.top}: the testbench does not know field {field!r} of {path}: "
                    "give it an entry in cosim/bench/records.py"
                )
    used = {port for found in design.streams for port in (found.valid, found.ready, *found.fields.values())}
    used |= set(design.plain.values()) | {"clk", "rst"}
    strangers = [port.name for port in design.ports if port.direction == "input" and port.name not in used]
    if strangers:
        raise ToolError(f"{design.top}: nothing drives input {strangers[0]!r}; describe it in design.json")


def _member(port: str) -> str:
    """A port's name in the C++ class that Verilator makes."""
    return "t." + port.replace("__", "___05F")


def stream_accessors(design: DesignDescription, role: str, found: StreamDescription | None) -> list[str]:
    """The accessors of a stream; of one that is not there, such that code which uses them compiles."""
    fields = found.fields if found else {}
    valid, ready = (_member(found.valid), found.ready and _member(found.ready)) if found else ("", None)
    masks = {port: (1 << design.width(port)) - 1 for port in fields.values()}
    put = " ".join(f"{_member(port)} = r.{_c(field)};" for field, port in fields.items())
    get = " ".join(f"r.{_c(field)} = {_member(port)};" for field, port in fields.items())
    same = " && ".join(f"r.{_c(field)} == {_member(port)}" for field, port in fields.items()) or "true"
    equal = " && ".join(f"a.{_c(field)} == b.{_c(field)}" for field in fields) or "true"
    flip = " ".join(f"{_member(port)} = ~{_member(port)} & {mask:#x}u;" for port, mask in masks.items())
    driven = found is not None and found.direction == "input"
    return [
        f"namespace {role} {{",
        f"constexpr bool present = {'true' if found else 'false'};",
        f"template <class T> inline bool valid(const T &t) {{ (void)t; return {valid or 'false'}; }}",
        f"template <class T> inline bool ready(const T &t) {{ (void)t; return {ready or 'true'}; }}",
        "template <class T, class R> inline void get(const T &t, R &r) { (void)t; (void)r; " + get + " }",
        "template <class T, class R> inline bool same(const T &t, const R &r) { (void)t; (void)r; return "
        + same
        + "; }",
        "template <class R> inline bool equal(const R &a, const R &b) { (void)a; (void)b; return " + equal + "; }",
        *(
            [
                f"template <class T> inline void set_valid(T &t, bool v) {{ {valid} = v; }}",
                "template <class T, class R> inline void put(T &t, const R &r) { " + put + " }",
                "template <class T> inline void flip(T &t) { " + flip + " }",
            ]
            if driven
            else [
                "template <class T> inline void set_ready(T &t, bool v) { (void)t; (void)v; "
                + (f"{ready} = v;" if ready else "")
                + " }",
                *(
                    []
                    if found
                    else [
                        "template <class T> inline void set_valid(T &, bool) {}",
                        "template <class T, class R> inline void put(T &, const R &) {}",
                        "template <class T> inline void flip(T &) {}",
                    ]
                ),
            ]
        ),
        "}",
    ]


def wide_accessors(design: DesignDescription, role: str) -> list[str]:
    """The accessors of a stream that is driven, of ports of any width: each field of a record is 64-bit words."""
    found = design.stream(role)
    assert found is not None
    puts = " ".join(f"wide({_member(port)}, r.{_c(field)});" for field, port in found.fields.items())
    ready = _member(found.ready) if found.ready else "true"
    return [
        f"namespace {role} {{",
        "template <class P> inline void wide(P &port, const uint64_t *words) {",
        "    if constexpr (std::is_integral_v<P>) port = static_cast<P>(words[0]);",
        "    else std::memcpy(port.data(), words, sizeof port);",
        "}",
        f"template <class T> inline bool ready(const T &t) {{ return {ready}; }}",
        f"template <class T> inline void set_valid(T &t, bool v) {{ {_member(found.valid)} = v; }}",
        "template <class T, class R> inline void put(T &t, const R &r) { " + puts + " }",
        "}",
    ]


def log_accessors(design: DesignDescription) -> list[str]:
    """What software sees of the dirty log, but for its setups; of a design without one, such that all compiles."""

    def port(path: str) -> str:
        return "t." + design.plain[f"log.{path}"].replace("__", "___05F")

    there = "log.head" in design.plain
    names = [path.removeprefix("log.status.") for path in design.plain if path.startswith("log.status.")]
    flags = " | ".join(f"uint64_t{{{port('status.' + name)}}} << {place}" for place, name in enumerate(names))
    clears = " ".join(f"{port('clear.' + name)} = v;" for name in names)
    told = {"tail": port("tail"), "lost": port("lost"), "flags": flags} if there else {}
    sets = {name: f"{port(name)} = v;" for name in ("head", "epoch")} if there else {}
    return [
        "namespace log {",
        *(
            f"template <class T> inline uint64_t {name}(const T &t) {{ (void)t; return {told.get(name, '0')}; }}"
            for name in ("tail", "lost", "flags")
        ),
        *(
            f"template <class T> inline void set_{name}(T &t, uint64_t v) {{ (void)t; (void)v; {sets.get(name, '')} }}"
            for name in ("head", "epoch")
        ),
        f"template <class T> inline void clear(T &t, bool v) {{ (void)t; (void)v; {clears} }}",
        "}",
    ]


def _group(role: str, ports: Mapping[str, str]) -> list[str]:
    """The accessors of a plain struct that the design tells; of one that is not there, too."""
    get = " ".join(f"r.{_c(field)} = {_member(port)};" for field, port in ports.items())
    same = " && ".join(f"r.{_c(field)} == {_member(port)}" for field, port in ports.items()) or "true"
    return [
        f"namespace {role} {{",
        f"constexpr bool present = {'true' if ports else 'false'};",
        "template <class T, class R> inline void get(const T &t, R &r) { (void)t; (void)r; " + get + " }",
        "template <class T, class R> inline bool same(const T &t, const R &r) { (void)t; (void)r; return "
        + same
        + "; }",
        "}",
    ]


def pins_header(design: DesignDescription) -> str:
    """How the compiled lane reaches the pins of a design: a namespace for each role, whether it is there or not."""
    check_known(design)
    lines = [
        f"// Made by cosim/bench/headers.py of the description of {design.top}.",
        "#pragma once",
        "namespace pins {",
        f"constexpr unsigned WALKER_MASK = {(1 << (design.parameters.get('walkers', 1) - 1).bit_length()) - 1};"
        "  // of the id of an access: whose it is",
        f"constexpr bool READ_GRANTS = {str(design.parameters.get('read_grants', False)).lower()};"
        "  // an OK to a read retires",
    ]
    for role in STREAMS:
        lines += stream_accessors(design, role, design.stream(role))
    for role in GROUPS:
        lines += _group(role, design.group(role))
    for role in _PINS:
        port = design.pin(role)
        value = _member(port) if port else "0"
        lines += [
            f"namespace {role} {{",
            f"constexpr bool present = {'true' if port else 'false'};",
            f"template <class T> inline uint64_t get(const T &t) {{ (void)t; return {value}; }}",
            "template <class T> inline void set(T &t, bool v) { (void)t; (void)v; "
            + (f"{_member(port)} = v;" if port and role == "drain" else "")
            + " }",
            "}",
        ]
    clear = [port for path, port in design.plain.items() if ".clear." in f".{path}"]
    cleared = " ".join(f"{_member(port)} = v;" for port in clear)
    lines += ["template <class T> inline void clear_status(T &t, bool v) { (void)t; (void)v; " + cleared + " }"]
    return "\n".join([*lines, "}", ""])


def lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design` for the batch level."""
    return {
        "lane.cpp": _SOURCE.read_text(),
        "clock.h": _CLOCK.read_text(),
        "words.h": _WORDS.read_text(),
        "records.h": records_header(),
        "pins.h": pins_header(design),
        "design.json": json.dumps(design.as_json()),
    }
