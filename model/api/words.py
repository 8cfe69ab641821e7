"""Arguments of the interface: words and numbers, each refused with the rule and then the value."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ptewalk.model.errors import Errno
from ptewalk.model.x86 import PAGE_BYTES

PAGE: Final = PAGE_BYTES
"""Bytes of a page."""
ADDRESS_LIMIT: Final = 1 << 64
Words = str | Iterable[str]
"""Words of a call: a string of them with spaces between, or any iterable."""


def one_of(what: str, value: object, known: Collection[str], *, prefix: str = "") -> str:
    """`value` as one of the `known` words, in whatever case, with or without its prefix in the C headers.

    Raises
    ------
    ValueError
        It is none of them.
    """
    plain = value.upper().removeprefix(prefix) if isinstance(value, str) else value
    for word in known:
        if plain == word.upper():
            return word
    raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}")


def some_of(what: str, values: Words, known: Collection[str], *, prefix: str = "") -> set[str]:
    """As `one_of`, for any number of words.

    Raises
    ------
    ValueError
        One of them is not known.
    """
    words = values.replace("|", " ").split() if isinstance(values, str) else values
    return {one_of(what, word, known, prefix=prefix) for word in words}


def protection(prot: object) -> str:
    """`prot` as letters of r, w and x.

    Raises
    ------
    ValueError
        It is something else.
    """
    if not isinstance(prot, str) or not prot or prot.strip("rwx-"):
        raise ValueError(f'prot must be made of r, w and x, or be "-" for none, not {prot!r}')
    return prot.replace("-", "")


def whole(what: str, value: object) -> int:
    """`value` as a number that is not negative.

    Raises
    ------
    TypeError, ValueError
        It is not whole, or negative.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be a whole number, not {value!r}")
    number: int = value.__index__()
    if number < 0:
        raise ValueError(f"{what} must be 0 or more, not {number!r}")
    return number


def address(what: str, value: object, length: int = 0) -> int:
    """`value` as a linear byte address, from which `length` bytes can be counted.

    Raises
    ------
    TypeError, ValueError
        It is not whole, or not one of 64 bits.
    """
    number = whole(what, value)
    if number + length > ADDRESS_LIMIT:
        raise ValueError(f"{what} and its length must lie below 2**64, not {number:#x} and {length}")
    return number


def page_of(what: str, at: int) -> int:
    """Number of the page that begins at the byte `at`.

    Raises
    ------
    Errno
        EINVAL: no page begins there.
    """
    if at % PAGE:
        raise Errno("EINVAL", f"{what} must be a multiple of {PAGE}, not {at:#x}")
    return at // PAGE


def pages_in(length: int) -> int:
    """Pages that hold `length` bytes (PAGE_ALIGN)."""
    return -(-length // PAGE)


def covering(at: int, length: int) -> tuple[int, int]:
    """First page, and number of pages, that the bytes [at, at + length) touch."""
    return at // PAGE, pages_in(at % PAGE + length) if length else 0
