"""What is asked of OTLP/gRPC, health and handlers by grpcio's server is asked of the front door."""

from __future__ import annotations

import pytest

from tests.receivers import test_grpc, test_health, test_methods, test_official_exporters
from tests.receivers.frontdoor.doors import started_door
from tests.receivers.test_grpc import *  # noqa: F403 - the tests themselves
from tests.receivers.test_health import *  # noqa: F403
from tests.receivers.test_methods import *  # noqa: F403
from tests.receivers.test_official_exporters import *  # noqa: F403

# What they ask of grpcio itself.
del test_a_request_far_over_the_limit_is_refused_by_grpcio_and_logged  # noqa: F821
del test_calls_beyond_the_bound_are_unavailable_with_a_delay  # noqa: F821
del test_stop_is_safe_before_start  # noqa: F821
del test_a_port_that_is_taken_is_an_error  # noqa: F821
del test_listens_on_ipv6_too  # noqa: F821


@pytest.fixture(autouse=True)
def _by_the_front_door(monkeypatch):
    for suite in (test_grpc, test_health, test_methods, test_official_exporters):
        monkeypatch.setattr(suite, "started_receivers", started_door)
