"""How a request's memory is held."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.access.budget import MemoryBudget
from gateway.errors import Cause, Refused
from gateway.otlp.media import Media
from gateway.receivers.admission import Reservation, decoding_bytes
from tests.kit.receivers import MIB
from tests.kit.spans import make_payload


@pytest.fixture
def budget():
    return MemoryBudget(1000)


def test_holds_what_it_grew_to_and_releases_it_once(budget):
    held = Reservation(budget)
    held.grow(100)
    held.grow(60)
    assert budget.used == 100
    held.grow(300)
    assert budget.used == 300
    held.shrink(200)
    held.shrink(250)
    assert budget.used == 200
    held.release()
    held.release()
    assert budget.used == 0


def test_refuses_to_grow_past_the_budget_and_keeps_what_it_held(budget):
    budget.try_reserve(800)
    held = Reservation(budget)
    held.grow(150)
    with pytest.raises(Refused, match="GATEWAY_MEMORY_BYTES") as caught:
        held.grow(201)
    assert caught.value.cause is Cause.MEMORY_FULL
    assert caught.value.retry_after_s is not None
    assert budget.used == 950
    held.release()
    assert budget.used == 800


def test_tells_apart_what_can_never_fit(budget):
    held = Reservation(budget)
    held.check_possible(1000)
    with pytest.raises(Refused, match=r"1001 bytes.*1000.*GATEWAY_MEMORY_BYTES") as caught:
        held.check_possible(1001)
    assert caught.value.cause is Cause.TOO_LARGE
    assert caught.value.retry_after_s is None


# -- what decoding takes -------------------------------------------------------------------------

SPAN = (
    b'{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"work",'
    b'"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000",'
    b'"attributes":[{"key":"http.route","value":%s}]}'
)
REQUEST = b'{"resourceSpans":[{"resource":%s,"scopeSpans":[{"spans":[%s]}]}]}'


def spans_in_json():
    return REQUEST % (b"{}", b",".join([SPAN % b'{"stringValue":"/cart/{id}"}'] * 10_000))


def tiny_values_in_json():
    values = b",".join([b'{"intValue":1}'] * 200_000)
    return REQUEST % (b"{}", SPAN % (b'{"arrayValue":{"values":[%s]}}' % values))


def tiny_keys_in_json():
    keys = b",".join([b'"ab"'] * 200_000)
    return REQUEST % (b'{"entityRefs":[{"idKeys":[%s]}]}' % keys, SPAN % b"{}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("make_body", "media"),
    [
        (lambda: make_payload(8000), Media.PROTOBUF),
        (lambda: make_payload(5000) * 8, Media.PROTOBUF),
        (spans_in_json, Media.JSON),
        (tiny_values_in_json, Media.JSON),
        (tiny_keys_in_json, Media.JSON),
    ],
    ids=["protobuf", "protobuf in pieces", "json", "json of tiny values", "json of tiny keys"],
)
async def test_decoding_takes_no_more_than_is_counted(make_body, media, tmp_path):
    """Measured in a process that does nothing else."""
    body = make_body()
    path = tmp_path / "body"
    path.write_bytes(body)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEASURE, path, media.name), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0
    taken, counted = len(body) + int(output), decoding_bytes(body, media)
    assert taken <= counted + 2 * MIB


MEASURE = """
import re, sys
from pathlib import Path
from gateway.errors import Refused
from gateway.otlp.decode import decode
from gateway.otlp.media import Media

def decoded(body, media):
    try:
        decode(body, media, now_ns=10**19, max_spans=8192, max_bytes=3 * 2**20)
    except Refused:  # a flood of tiny values; what it took until then counts
        pass

def peak_bytes():  # getrusage would count what the parent had before the exec
    status = Path("/proc/self/status").read_text()
    return int(re.search("VmHWM:\\s*(\\d+) kB", status)[1]) * 1024

media = Media[sys.argv[2]]
decoded(b"{}" if media is Media.JSON else b"", media)
body = Path(sys.argv[1]).read_bytes()
before = peak_bytes()
decoded(body, media)
print(peak_bytes() - before)
"""


def test_counts_what_json_becomes_by_its_elements():
    assert decoding_bytes(b"x" * 100, Media.PROTOBUF) == 600
    assert decoding_bytes(b"[1,2,3]", Media.JSON) == 7 * 4 + 2 * 220
