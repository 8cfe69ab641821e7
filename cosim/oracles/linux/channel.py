"""What the host and a guest say to each other, and the host to QEMU: lines over sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

from ptewalk.cosim.base.errors import ToolError

__all__ = ["Channel", "Qmp"]


class Channel:
    """Lines over a socket, the other end of which is handed to QEMU."""

    def __init__(self) -> None:
        self._socket, self.far_end = socket.socketpair()
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.settimeout(None)
        self._socket.sendall(data)

    def line(self, seconds: float) -> str:
        """The next line; TimeoutError after `seconds`, ConnectionError when QEMU is gone."""
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close what is open here."""
        self.far_end.close()
        self._socket.close()


class Qmp:
    """QEMU's own control channel, for one question: the processor's registers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def start(self, seconds: float) -> None:
        """Take the greeting and leave negotiation."""
        self._channel.line(seconds)
        self._ask({"execute": "qmp_capabilities"}, seconds)

    def registers(self, seconds: float) -> dict[str, int]:
        """Register name to value."""
        command = {"execute": "human-monitor-command", "arguments": {"command-line": "info registers"}}
        text = str(self._ask(command, seconds))
        return {name: int(value, 16) for name, value in re.findall(r"\b([A-Z][A-Z0-9]+) ?=([0-9a-f]+)", text)}

    def _ask(self, command: dict[str, Any], seconds: float) -> object:
        self._channel.send(json.dumps(command).encode() + b"\n")
        while True:
            answer = json.loads(self._channel.line(seconds))
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise ToolError(f"QEMU refused {command['execute']}: {answer['error'].get('desc')}")
