from __future__ import annotations

import io
import json
import logging

import pytest

from gateway.telemetry.logs import Throttle, configure, facts
from tests.kit.gateway import logfmt


@pytest.fixture
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log(restored):
    stream = io.StringIO()
    configure("info", "logfmt", stream)
    return stream


def test_what_holds_for_a_whole_process_is_in_each_of_its_events(restored):
    stream = io.StringIO()
    configure("info", "logfmt", stream, worker=1)
    logging.getLogger("gateway.test").info("one")
    logging.getLogger("gateway.test").info("two", extra=facts(port=4317))
    one, two = map(logfmt, stream.getvalue().splitlines())
    assert (one["worker"], two["worker"], two["port"]) == ("1", "1", "4317")


def test_a_logfmt_event_is_one_line_with_its_facts(log):
    logging.getLogger("gateway.test").info(
        "listening", extra=facts(protocol="grpc", port=4317, why='a b\n"c"', absent=None)
    )
    (line,) = log.getvalue().splitlines()
    event = logfmt(line)
    assert event["msg"] == "listening"
    assert event["level"] == "info"
    assert event["logger"] == "gateway.test"
    assert (event["protocol"], event["port"]) == ("grpc", "4317")
    assert "absent" not in event
    assert r'why="a b\n\"c\""' in line


def test_a_json_event_is_one_object_a_line(restored):
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("gateway.test").warning("otlp rejected", extra=facts(count=3))
    event = json.loads(stream.getvalue())
    assert (event["msg"], event["level"], event["count"]) == ("otlp rejected", "warn", 3)


def test_an_exception_stays_on_the_line_of_its_event(log):
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("gateway.test").exception("task failed")
    (line,) = log.getvalue().splitlines()
    assert "RuntimeError: boom" in line


def test_what_is_below_the_level_is_not_written(log):
    logging.getLogger("gateway.test").debug("noise")
    assert log.getvalue() == ""


def test_a_throttle_lets_one_of_a_kind_through_and_counts_the_rest():
    throttle = Throttle(interval_s=3600)
    assert throttle.ready("a") == 0
    assert throttle.ready("a") is None
    assert throttle.ready("b") == 0


def test_a_throttle_tells_how_many_it_kept_quiet():
    throttle = Throttle(interval_s=0)
    throttle._quiet["a"] = 4
    assert throttle.ready("a") == 4
    assert throttle.ready("a") == 0
