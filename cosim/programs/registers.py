"""The registers of a program, by name: numbers that can be written down, and checked when they are read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from unicorn import x86_const as reg

__all__ = ["BATCHED", "REGISTERS", "Registers"]

_GENERAL: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
REGISTERS: Final[dict[str, int]] = {
    **{name: getattr(reg, f"UC_X86_REG_{name.upper()}") for name in (*_GENERAL, "rip")},
    "rflags": reg.UC_X86_REG_RFLAGS,
    "fs_base": reg.UC_X86_REG_FS_BASE,
    "gs_base": reg.UC_X86_REG_GS_BASE,
    "fpcw": reg.UC_X86_REG_FPCW,
    "fpsw": reg.UC_X86_REG_FPSW,
    "fptag": reg.UC_X86_REG_FPTAG,
    "mxcsr": reg.UC_X86_REG_MXCSR,
    **{f"fp{number}": getattr(reg, f"UC_X86_REG_FP{number}") for number in range(8)},
    **{f"xmm{number}": getattr(reg, f"UC_X86_REG_XMM{number}") for number in range(16)},
}
"""Name to Unicorn's number."""
BATCHED: Final = tuple(REGISTERS.values())
_BITS: Final = {"fpcw": 16, "fpsw": 16, "fptag": 16, "mxcsr": 32}


def _bits(name: str) -> int:
    return 128 if name.startswith("xmm") else _BITS.get(name, 64)


@dataclass(frozen=True)
class Registers:
    """The values of all `REGISTERS`; a register of the x87 stack is (mantissa, sign and exponent)."""

    values: Mapping[str, Any]

    def with_(self, **values: int) -> Registers:
        """The same but for some."""
        return Registers({**self.values, **values})

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def as_json(self) -> dict[str, Any]:
        """Numbers as hexadecimal text, by name."""
        return {
            name: [hex(part) for part in value] if isinstance(value, tuple) else hex(value)
            for name, value in self.values.items()
        }

    @staticmethod
    def from_json(value: Any) -> Registers:
        """What `as_json` gave. Raises ValueError that names the register."""
        if not isinstance(value, dict) or value.keys() != REGISTERS.keys():
            odd = sorted(value.keys() ^ REGISTERS.keys()) if isinstance(value, dict) else "not an object"
            raise ValueError(f"registers: {odd}")
        found: dict[str, Any] = {}
        for name, text in value.items():
            if name.startswith("fp") and name[2:].isdigit():
                if not isinstance(text, list) or len(text) != 2:
                    raise ValueError(f"register {name}: {text!r}")
                found[name] = _number(name, text[0], 64), _number(name, text[1], 16)
            else:
                found[name] = _number(name, text, _bits(name))
        return Registers(found)


def _number(name: str, text: object, bits: int) -> int:
    try:
        number = int(text, 16) if isinstance(text, str) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 1 << bits:
        raise ValueError(f"register {name}: {text!r}")
    return number
