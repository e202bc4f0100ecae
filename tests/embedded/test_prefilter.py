from __future__ import annotations

import pytest

from gateway.embedded.messages import ResourceSpans
from gateway.embedded.prefilter import EVERYTHING, MAX_ORIGINS, NOTHING, Prefilter, Sql
from gateway.embedded.stored import Origin
from gateway.embedded.traceql import parse
from tests.kit.spans import make_request


def origin(service):
    request = make_request(service=service)
    return Origin(
        ResourceSpans.FromString(request.resource_spans[0].SerializeToString()).SerializeToString()
    )


def sql(text, *, services=("shop", "db")):
    origins = {key: origin(service) for key, service in enumerate(services, start=1)}
    return Prefilter(origins, lambda: None).sql(parse(f"{{ {text} }}").condition)


BODY = "instr(s.body, ?)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", EVERYTHING),
        ("false", NOTHING),
        ('name != "x"', Sql("s.name != ?", ("x",))),
        ("status = error", Sql("s.status = ?", (2,))),
        ("traceDuration > 5ms", Sql("(t.end_ns - t.start_ns) > ?", (5_000_000,))),
        ('name =~ "x"', EVERYTHING),
        ('trace:id = "ab"', Sql("t.trace_id = ?", (bytes(15) + b"\xab",))),
        ('span:id = "no hex"', NOTHING),
        ('event:name = "boom"', Sql(BODY, (b"boom",))),
        ("span.a > 5", Sql(BODY, (b"a",))),
        ("span.a = nil", EVERYTHING),
        ('span.a = "b"', Sql(f"({BODY}) AND ({BODY})", (b"a", b"\x0a\x01b"))),
        ("event.a = 300", Sql(f"({BODY}) AND ({BODY})", (b"a", b"\x18\xac\x02"))),
        ('resource.service.name = "db"', Sql("s.origin IN (?)", (2,))),
        ("resource.service.name != nil", Sql("s.origin IN (?, ?)", (1, 2))),
        ("resource.nosuch != nil", NOTHING),
        (".a > 5", Sql(BODY, (b"a",))),
        (
            '.service.name =~ "d.*"',
            Sql(f"({BODY}) OR (s.origin IN (?))", (b"service.name", 2)),
        ),
        ('name = "x" && .a = nil', Sql("s.name = ?", ("x",))),
        ('name = "x" || .a = nil', EVERYTHING),
        ('name = "x" && false', Sql("(s.name = ?) AND (0)", ("x",))),
    ],
)
def test_conditions_as_sql(text, expected):
    assert sql(text) == expected


def test_a_long_list_of_origins_filters_nothing():
    services = [f"s{index}" for index in range(MAX_ORIGINS + 1)]
    assert sql("resource.service.name != nil", services=services) == EVERYTHING
    assert sql('resource.service.name = "s7"', services=services) == Sql("s.origin IN (?)", (8,))
