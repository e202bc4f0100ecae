"""Answers as bytes."""

from __future__ import annotations

import email.utils
import http

from gateway.receivers.replies import Reply

_EMPTY = frozenset({b"", b"{}"})


class Answers:
    """Writes answers; the frequent one, that every span was taken, is made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._date = ""
        self._clean: dict[bytes, bytes] = {}
        """By body: an empty message, as protobuf and JSON write it."""

    def write(self, reply: Reply, unix_s: float, *, close: bool) -> bytes:
        """``unix_s`` is the time since 1970 for the field Date."""
        second = int(unix_s)
        if second != self._second:
            self._second = second
            self._date = email.utils.formatdate(second, usegmt=True)
            self._clean.clear()
        if reply.refused is not None or close:
            return self._make(reply, close=close)
        answer = self._clean.get(reply.body)
        if answer is None:
            answer = self._make(reply, close=False)
            if reply.body in _EMPTY:
                self._clean[reply.body] = answer
        return answer

    def _make(self, reply: Reply, *, close: bool) -> bytes:
        status = reply.http_status
        fields = reply.http_headers()
        fields["Content-Length"] = str(len(reply.body))
        fields["Date"] = self._date
        if close:
            fields["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join((*lines, "\r\n")).encode() + reply.body
