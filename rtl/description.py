"""What a design looks like from outside, as plain data: its parameters, its ports, and the streams they make up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DesignDescription", "PortDescription", "StreamDescription", "role_of"]


def role_of(path: str) -> str:
    """What a member is for: the last part of its path, without the prefix of its direction.

    "requester.requests" is "requests", "o_written" is "written".
    """
    last = path.rpartition(".")[2]
    return last[2:] if last[:2] in ("i_", "o_") else last


@dataclass(frozen=True)
class PortDescription:
    """One port of the flattened top.

    Attributes
    ----------
    name : str
    direction : str
        "input" or "output".
    width : int
        In bits.
    """

    name: str
    direction: str
    width: int


@dataclass(frozen=True)
class StreamDescription:
    """One stream, and the ports that it is made of.

    Attributes
    ----------
    path : str
        Its place in the signature: "requester.requests".
    direction : str
        Of valid and payload: "input" or "output".
    valid : str
    ready : str or None
        None: always ready.
    fields : dict of str to str
        Field of the payload to port, in order.
    """

    path: str
    direction: str
    valid: str
    ready: str | None
    fields: dict[str, str]


@dataclass(frozen=True)
class DesignDescription:
    """A design from outside; its JSON is the `design.json` of a build and of an export.

    Attributes
    ----------
    design : str
        Its name in `export.DESIGNS`.
    top : str
        Name of the Verilog module.
    parameters : dict
        Every parameter of its configuration; nested ones by their own names.
    ports : tuple of PortDescription
        All, clk and rst first.
    streams : tuple of StreamDescription
    plain : dict of str to str
        Path of each member that is no stream to its port; a struct's field is "member.field".
    """

    design: str
    top: str
    parameters: dict[str, Any] = field(default_factory=dict)
    ports: tuple[PortDescription, ...] = ()
    streams: tuple[StreamDescription, ...] = ()
    plain: dict[str, str] = field(default_factory=dict)

    def width(self, port: str) -> int:
        """Width of a port, in bits; KeyError when there is none of that name."""
        return {found.name: found.width for found in self.ports}[port]

    def stream(self, role: str) -> StreamDescription | None:
        """The stream of this role; None when the design has none."""
        return next((found for found in self.streams if role_of(found.path) == role), None)

    def pin(self, role: str) -> str | None:
        """The port of the plain member of this role; None when the design has none."""
        return next((port for path, port in self.plain.items() if role_of(path) == role), None)

    def group(self, role: str) -> dict[str, str]:
        """Field to port of the plain member of this role that is a struct; empty when the design has none."""
        paths = ((path.rpartition("."), port) for path, port in self.plain.items())
        return {field: port for (member, _, field), port in paths if role_of(member) == role}

    def as_json(self) -> dict[str, Any]:
        """An object that `from_json` takes."""
        return asdict(self) | {
            "ports": [asdict(port) for port in self.ports],
            "streams": {found.path: {k: v for k, v in asdict(found).items() if k != "path"} for found in self.streams},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "DesignDescription":
        """The description that `as_json` made `value` of."""
        return DesignDescription(
            value["design"],
            value["top"],
            dict(value["parameters"]),
            tuple(PortDescription(**port) for port in value["ports"]),
            tuple(StreamDescription(path, **rest) for path, rest in value["streams"].items()),
            dict(value["plain"]),
        )
