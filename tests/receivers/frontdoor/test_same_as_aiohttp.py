"""Everything that is asked of OTLP/HTTP by aiohttp's server is asked of the front door."""

from __future__ import annotations

import pytest

from tests.receivers import test_http as suite
from tests.receivers.frontdoor.doors import started_door
from tests.receivers.test_http import *  # noqa: F403 - the tests themselves

# What they ask of aiohttp itself.
del test_broken_chunks_are_not_waited_for_longer_than_silence  # noqa: F821
del test_broken_chunks_are_400_with_the_parser_in_python  # noqa: F821
del test_holds_without_cancelled_handlers_too  # noqa: F821
del test_spans_of_a_client_that_leaves_before_its_answer_stay_accepted  # noqa: F821
del test_what_was_told_ok_while_stopping_is_taken_and_nothing_after  # noqa: F821


@pytest.fixture(autouse=True)
def _by_the_front_door(monkeypatch):
    monkeypatch.setattr(suite, "started_receivers", started_door)
