"""Closed: the end of a channel or of a connection, and why."""

from __future__ import annotations

#: AMQP's code for what is missing on the server: a queue, most of the time.
NOT_FOUND = 404

#: For an end without a fault.
GOODBYE = 200


class Closed(Exception):
    """A channel, or the connection under it, is no more. `code` is AMQP's, 0 where the network is the reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def by(cls, error: BaseException | None) -> Closed:
        """What pika's error says."""
        code = getattr(error, "reply_code", 0)
        text = getattr(error, "reply_text", "") or str(error) or type(error).__name__
        return cls(int(code), text)
