from __future__ import annotations

import pytest

from gateway.errors import Cause, Refused
from gateway.otlp.media import Decoded, Media
from gateway.receivers.frontdoor.http1.answers import Answers
from gateway.receivers.replies import Reply

NOON = 1795348800.0


def lines(answer: bytes) -> list[str]:
    head, _, _ = answer.partition(b"\r\n\r\n")
    return head.decode().split("\r\n")


@pytest.mark.parametrize(("media", "body"), [(Media.PROTOBUF, b""), (Media.JSON, b"{}")])
def test_a_success_is_written(media, body):
    answer = Answers().write(Reply.of_success(media, Decoded()), NOON, close=False)
    first, *fields = lines(answer)
    assert first == "HTTP/1.1 200 OK"
    assert set(fields) == {
        f"Content-Type: application/{'x-protobuf' if media is Media.PROTOBUF else 'json'}",
        f"Content-Length: {len(body)}",
        "Date: Sun, 22 Nov 2026 12:00:00 GMT",
    }
    assert answer.endswith(b"\r\n\r\n" + body)


def test_the_date_follows_the_clock():
    answers, reply = Answers(), Reply.of_success(Media.PROTOBUF, Decoded())
    assert answers.write(reply, NOON, close=False) is answers.write(reply, NOON + 0.9, close=False)
    assert "Date: Sun, 22 Nov 2026 12:00:01 GMT" in lines(
        answers.write(reply, NOON + 1, close=False)
    )


def test_a_refusal_is_written_with_its_hints():
    refused = Refused(Cause.MEMORY_FULL, "later", retry_after_s=1.5)
    reply = Reply.of_refusal(Media.JSON, refused)
    answer = Answers().write(reply, NOON, close=False)
    first, *fields = lines(answer)
    assert first == "HTTP/1.1 503 Service Unavailable"
    assert "Retry-After: 2" in fields
    assert answer.endswith(reply.body)


def test_the_end_of_the_connection_is_told():
    reply = Reply.of_success(Media.PROTOBUF, Decoded())
    assert "Connection: close" in lines(Answers().write(reply, NOON, close=True))


def test_partial_successes_are_not_kept():
    answers = Answers()
    for number in range(10):
        decoded = Decoded(rejected={"a": number}, message=f"{number} refused")
        answer = answers.write(Reply.of_success(Media.JSON, decoded), NOON, close=False)
        assert f"{number} refused".encode() in answer
    assert answers._clean == {}
