"""One socket to one broker: frames out, frames in.

It knows frames and nothing of methods. What is written in one turn of the loop leaves as one write. While the socket takes
nothing more, what is to be written waits here, so that on a lost connection it is known not to have left.
"""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack

# An answer can be larger than what the broker takes, and a peer that is no broker can announce anything.
MAX_FRAME = 16 << 20
MAX_ELEMENTS = 2 << 20
MAX_READ = 1 << 20  # more than asyncio reads at once


class Frame:
    """A frame to write. `is_dropped`: it is not wanted any more, if it has not left."""

    __slots__ = ("data", "has_left", "is_dropped")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.has_left = False
        self.is_dropped = False


class Wire(asyncio.Protocol):
    """`on_frame(frame)` runs for each frame that comes, which may be anything; a TypeError, ValueError or LookupError of it
    ends the connection. `on_end(wire, why)` runs once, after the last frame, unless close() came first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[Any], None],
        on_end: Callable[[Wire, str], None],
    ) -> None:
        self.heard = loop.time()  # when something came last
        self._loop = loop
        self.on_frame = on_frame
        self.on_end: Callable[[Wire, str], None] | None = on_end
        self._transport: asyncio.Transport | None = None
        self._out: list[Frame] = []
        self._is_full = False  # the socket takes no more for now
        self._flush_is_due = False
        self._why = ""
        self.socket: Any = None
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            unicode_errors="surrogateescape",
            max_buffer_size=MAX_FRAME + MAX_READ,
            max_array_len=MAX_ELEMENTS,
            max_map_len=MAX_ELEMENTS // 2,
        )

    # --- out

    def write(self, frame: Frame, at_once: bool = False) -> None:
        """With the others of this turn. `at_once`: nothing else is on its way, so there is nothing to wait for."""
        self._out.append(frame)
        if at_once:
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._is_full or not self._out or self._transport is None:
            return
        leaving = [frame for frame in self._out if not frame.is_dropped]
        self._out.clear()
        if not leaving:
            return
        for frame in leaving:
            frame.has_left = True
        self._transport.write(leaving[0].data if len(leaving) == 1 else b"".join([frame.data for frame in leaving]))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._flush()

    # --- in

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker:
                if self.on_end is None:
                    return
                self.on_frame(frame)
        except (TypeError, ValueError, LookupError, msgpack.UnpackException) as problem:
            self.abort(f"the peer does not speak the protocol: {type(problem).__name__} {problem}")

    # --- begin and end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.socket = transport.get_extra_info("socket")

    def connection_lost(self, error: Exception | None) -> None:
        self._ended(self._why or (str(error) if error else "the broker closed the connection"))

    def abort(self, why: str) -> None:
        """End it now; on_end tells why, on the next turn."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it after what was written has left. Nobody is told."""
        self._flush()
        self.on_end = None
        if self._transport is not None:
            self._transport.close()

    def _ended(self, why: str) -> None:
        on_end, self.on_end, self._transport = self.on_end, None, None
        if on_end is not None:
            on_end(self, why)
