"""The arguments of the verbs: what a value may be, and what is used where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

FILES: Final = 5
"""Files 0 to 3 lie in memory, file 4 on a disk."""
MAPPING_KINDS: Final = (
    *("anon", "sanon", "hugetlb", "shugetlb", "hugetlb1g"),
    *(f"{letter}{number}" for letter in "ps" for number in range(FILES)),
)
"""Kinds of a mapping: a letter and a number are a private or a shared mapping of that file."""
_WORD_BITS: Final = 64


class OperationError(Exception):
    """An operation is not what the format says; the text tells the rule."""


class Type(Protocol):
    """What an argument may be."""

    @property
    def text(self) -> str:
        """What it may be, in words: "a whole number"."""

    def take(self, name: str, value: Any) -> Any:
        """The value as verbs use it; `OperationError` when it is none."""


def wrong(name: str, must: str, value: Any) -> OperationError:
    """The error for an argument that is not what it must be."""
    return OperationError(f"{name!r} must be {must}, not {value!r:.40}")


def whole(name: str, value: Any) -> int:
    """A value that must be a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(name, "a whole number", value)
    return value


@dataclass(frozen=True)
class Whole:
    """A whole number in a range, ends included."""

    low: int
    high: int

    @property
    def text(self) -> str:
        return f"{self.low} to {self.high}"

    def take(self, name: str, value: Any) -> int:
        if not self.low <= whole(name, value) <= self.high:
            raise OperationError(f"{name!r} must be {self.text}, not {value}")
        return int(value)


@dataclass(frozen=True)
class Word:
    """A 64-bit number of the ABI: a whole number, or a text of one ("0x1000"); a negative one is taken modulo 2^64."""

    signed: bool = False
    """It is added to another number, and so keeps its sign."""

    @property
    def text(self) -> str:
        return 'a number of 64 bits, or a text such as "0x1000"'

    def take(self, name: str, value: Any) -> int:
        number = value
        if isinstance(value, str):
            try:
                number = int(value, 0)
            except ValueError:
                raise wrong(name, self.text, value) from None
        if not isinstance(number, int) or isinstance(number, bool) or not -(1 << 63) <= number < 1 << _WORD_BITS:
            raise wrong(name, self.text, value)
        return number if self.signed else number & (1 << _WORD_BITS) - 1


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: Sequence[Any]

    @property
    def text(self) -> str:
        return "one of " + ", ".join(map(str, self.values))

    def take(self, name: str, value: Any) -> Any:
        if isinstance(value, (list, dict)) or value not in self.values:
            raise wrong(name, self.text, value)
        return value


@dataclass(frozen=True)
class Flags:
    """A list of names, each of which is known."""

    known: Sequence[str]

    @property
    def text(self) -> str:
        return "a list of " + ", ".join(self.known)

    def take(self, name: str, value: Any) -> list[str]:
        if not isinstance(value, list):
            raise wrong(name, self.text, value)
        for flag in value:
            if flag not in self.known:
                raise OperationError(f"{name!r} must be {self.text}, not of {flag!r:.40}")
        return value


@dataclass(frozen=True)
class Protection:
    """Rights: letters, or "-" for none."""

    @property
    def text(self) -> str:
        return 'made of r, w and x, or "-"'

    def take(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value != "-" and (not value or value.strip("rwx")):
            raise wrong(name, self.text, value)
        return value


@dataclass(frozen=True)
class FileNumber:
    """A file by its number, 0 to 4, which may have the letter of a mapping before it ("s0")."""

    @property
    def text(self) -> str:
        return f"a file's number, 0 to {FILES - 1}"

    def take(self, name: str, value: Any) -> int:
        digits = value[1:] if isinstance(value, str) and value[:1] in ("s", "p") else value
        for number in range(FILES):
            if digits == str(number) or digits == number and not isinstance(digits, bool | float):
                return number
        raise wrong(name, self.text, value)


@dataclass(frozen=True)
class Text:
    """Text of at most so many bytes; a whole number stands for its digits."""

    most: int
    escaped: bool = False
    r"""``\n``, ``\0`` and ``\t`` stand for a line feed, a zero byte and a tab."""

    @property
    def text(self) -> str:
        return f"text of at most {self.most} bytes"

    def take(self, name: str, value: Any) -> str:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise wrong(name, self.text, value)
        text = str(value)
        if self.escaped:
            text = text.replace("\\n", "\n").replace("\\0", "\0").replace("\\t", "\t")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise wrong(name, self.text, value) from None
        if size > self.most:
            raise OperationError(f"{name!r} must be {self.text}, not of {size}")
        return text


class _Required:
    """There is no default."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Argument:
    """One argument of a verb.

    Attributes
    ----------
    name : str
    type : Type
    default : object
        What is used where the argument is missing or null, or `REQUIRED`. None: it depends on other arguments, or the
        verb does without.
    also : str or None
        Another name that old recordings have.
    """

    name: str
    type: Type
    default: Any = REQUIRED
    also: str | None = None

    def of(self, op: Mapping[str, Any]) -> Any:
        """The argument's value in an operation, as verbs use it."""
        value = op.get(self.name)
        if value is None and self.also is not None:
            value = op.get(self.also)
        if value is not None:
            return self.type.take(self.name, value)
        if self.default is REQUIRED:
            raise OperationError(f"{op['op']} needs {self.name!r}: {self.type.text}")
        return self.default
