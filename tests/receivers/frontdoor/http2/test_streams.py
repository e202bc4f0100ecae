from __future__ import annotations

import pytest

from gateway.receivers.frontdoor.http2.frames import ErrorCode
from gateway.receivers.frontdoor.http2.streams import ENDS, MOVES, Input, State

FROM_PEER = [what for what in Input if what not in {Input.ANSWERED, Input.DROPPED}]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("what", FROM_PEER)
def test_whatever_the_peer_does_has_an_answer(state, what):
    assert isinstance(MOVES[state][what], State | ErrorCode)


@pytest.mark.parametrize("what", [Input.ANSWERED, Input.DROPPED])
def test_we_end_only_streams_that_live(what):
    assert {state for state in ENDS if what in ENDS[state]} == {State.OPEN, State.HALF_CLOSED}


def test_a_stream_never_lives_again():
    for state in (State.CLOSED, State.DISCARDED):
        assert not {State.OPEN, State.HALF_CLOSED, State.IDLE} & set(MOVES[state].values())


def test_a_request_has_ended_once():
    for what in (Input.DATA, Input.LAST_DATA, Input.HEADERS, Input.LAST_HEADERS):
        assert MOVES[State.HALF_CLOSED][what] is ErrorCode.STREAM_CLOSED
