"""Driver: pika's connection, with a short way for the frames of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter

from gotasks_rabbitmq import frames

#: So many bytes are read at once.
_BUFFER = 64 * 1024


class Driver(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, which sees nothing of what `readers` take."""

    def __init__(self, parameters: Any, **callbacks: Any) -> None:
        self._frame_buffer: bytes  # pika's: the beginning of a frame whose end isn't here yet
        #: channel → takes the type and the content of each frame that comes for it, or leaves it to pika
        self.readers: dict[int, Callable[[int, bytes], bool]] = {}
        super().__init__(parameters, custom_ioloop=_Services(asyncio.get_running_loop()), **callbacks)

    @property
    def body_max_length(self) -> int:
        """So many bytes of a body go into one frame."""
        return int(self._body_max_length)

    def send(self, data: bytes) -> None:
        """Send frames; not while it ends, of which all who wait for an answer are told."""
        if data and self.is_open and not self._transport.is_closing():
            self._output_marshaled_frames([data])

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # Of a connection that was given up while it was opened, pika hands out a class, and then stumbles over that.
        done = conn_or_exc() if isinstance(conn_or_exc, type) else conn_or_exc
        super()._on_connection_workflow_done(done)

    def _on_data_available(self, data_in: bytes) -> None:
        if not self.readers:
            super()._on_data_available(data_in)
            return
        data, self._frame_buffer = self._frame_buffer + data_in, b""
        at, end = 0, len(data)
        while end - at >= frames.AROUND:
            kind, channel, size = frames.HEAD.unpack_from(data, at)
            after = at + size + frames.AROUND
            if after > end:
                break
            reader = self.readers.get(channel)
            if reader is not None and reader(kind, data[at + frames.HEAD.size : after - 1]):
                self.bytes_received += after - at
            else:
                super()._on_data_available(data[at:after])
            at = after
        self._frame_buffer = data[at:]


class _Services(_AsyncioIOServicesAdapter):  # type: ignore[misc]
    """What pika needs of a loop. Bytes are sent and received in the loop's own way: pika's costs twice as much."""

    def create_streaming_connection(
        self,
        protocol_factory: Any,
        sock: Any,
        on_done: Any,
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> Any:
        async def connect() -> tuple[asyncio.BaseTransport, Any]:
            stream = _Stream(protocol_factory())
            transport, _ = await self._loop.create_connection(
                lambda: stream, sock=sock, ssl=ssl_context, server_hostname=server_hostname
            )
            return transport, stream.reader

        return self._schedule_and_wrap_in_io_ref(connect(), on_done)


class _Stream(asyncio.BufferedProtocol):
    """Hands what comes from the network to pika's `reader`.

    It is read into one buffer. To make one for each read, as the loop does by default, takes longer than to read.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self._buffer = memoryview(bytearray(_BUFFER))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.reader.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.reader.connection_lost(error)

    def eof_received(self) -> bool | None:
        closes: bool | None = self.reader.eof_received()
        return closes

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.reader.data_received(bytes(self._buffer[:nbytes]))
