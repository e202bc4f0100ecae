"""What headers mean."""

from __future__ import annotations

import pytest

from gateway.errors import Cause, Refused
from gateway.otlp.media import Media
from gateway.receivers.headers import (
    EXPORT_METHOD,
    check_media,
    check_method,
    check_path,
    check_tenant,
    media_of,
    quoted,
)


@pytest.mark.parametrize(
    ("content_type", "media"),
    [
        ("application/x-protobuf", Media.PROTOBUF),
        ("application/json", Media.JSON),
        ("application/json; charset=utf-8", Media.JSON),
        ("Application/JSON;charset=UTF-8", Media.JSON),
        (" application/x-protobuf ; messageType=x", Media.PROTOBUF),
        ("application/jsonx", None),
        ("text/plain", None),
        ("", None),
        (None, None),
    ],
)
def test_reads_the_media_type_whatever_its_parameters(content_type, media):
    assert media_of(content_type) is media


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/grpc"])
def test_refuses_another_content_type_and_says_what_is_accepted(content_type):
    with pytest.raises(Refused, match="application/x-protobuf or application/json") as caught:
        check_media(content_type)
    assert caught.value.cause is Cause.CONTENT_TYPE


@pytest.mark.parametrize(
    ("transport", "path"),
    [("http", "/v1/traces"), ("http", "/v1/traces/"), ("grpc", EXPORT_METHOD)],
)
def test_serves_the_export_of_traces(transport, path):
    check_path(transport, path)


@pytest.mark.parametrize(
    ("transport", "path"),
    [
        ("http", "/v1/metrics"),
        ("http", "/v1/logs"),
        ("http", "/v1/traces//"),
        ("http", "/v1/traces/x"),
        ("http", EXPORT_METHOD),
        ("grpc", "/v1/traces"),
        ("grpc", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
    ],
)
def test_refuses_all_other_paths_and_says_what_is_served(transport, path):
    served = "POST /v1/traces" if transport == "http" else EXPORT_METHOD
    with pytest.raises(Refused, match=f"traces.*{served}") as caught:
        check_path(transport, path)
    assert caught.value.cause is Cause.NOT_FOUND


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "post"])
def test_refuses_other_methods(method):
    with pytest.raises(Refused, match="POST") as caught:
        check_method(method)
    assert caught.value.cause is Cause.METHOD


@pytest.mark.parametrize(
    "tenant", ["shop", "a", "x" * 150, "Team-7_eu.west", "it's(really)*fine*!", "...", "0"]
)
def test_takes_a_tenant_that_tempo_takes(tenant):
    assert check_tenant([tenant]) == tenant


@pytest.mark.parametrize("values", [[], [""], ()])
def test_has_no_tenant_where_none_is_named(values):
    assert check_tenant(values) == ""


@pytest.mark.parametrize(
    "tenant",
    ["x" * 151, ".", "..", "a/b", "a|b", "a b", "a\n", "é", "../x", "a,b"],
)
def test_refuses_a_tenant_that_could_leave_its_place_in_storage(tenant):
    with pytest.raises(Refused, match="150 letters, digits and ! - _") as caught:
        check_tenant([tenant])
    assert caught.value.cause is Cause.MALFORMED


@pytest.mark.parametrize("values", [["a", "b"], ["a", "a"]])
def test_refuses_a_repeated_tenant(values):
    with pytest.raises(Refused, match="more than once") as caught:
        check_tenant(values)
    assert caught.value.cause is Cause.MALFORMED


def test_quotes_what_a_client_sent_short_and_plain():
    assert quoted("text/plain") == "'text/plain'"
    assert quoted("a\r\nb\x00é\udcff") == r"'a\r\nb\x00\xe9\udcff'"
    assert len(quoted("x" * 100_000)) < 120
