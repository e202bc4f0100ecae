"""A gateway of two workers from outside: real processes."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
from pathlib import Path

import pytest

from gateway.access.container import budget_of
from gateway.settings import Settings
from tests.faults.gateways import children_of, post, status_of, wait_until_quiet
from tests.kit.gateway import RunningGateway, eventually, is_gone, running_gateway
from tests.kit.spans import make_payload

EMBEDDED = {"TEMPO_MODE": "embedded"}
TWO = {**EMBEDDED, "WEB_CONCURRENCY": "2"}
REQUESTS, SPANS = 40, 3


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running_gateway(tmp_path_factory.mktemp("data"), TWO) as gateway:
        gateway.wait_until_ready()
        yield gateway


def workers_of(gateway) -> list[int]:
    return status_of(gateway)["workers"]["pids"]


def test_both_take_spans_and_either_speaks_for_both(gateway):
    """Each request has a connection of its own, and the kernel shares them out."""
    body = make_payload(SPANS)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: post(gateway, body), range(REQUESTS))) == {200}
    books = wait_until_quiet(gateway)
    assert books["accepted"] == books["delivered"] == REQUESTS * SPANS
    text = gateway.get("/metrics")[1]
    assert "gateway_workers 2.0" in text
    assert "gateway_backend_up 1.0" in text
    status = status_of(gateway)
    assert status["spans"]["accepted"] == REQUESTS * SPANS
    assert status["backend"]["state"] == "ready"
    assert status["workers"] | {"pids": []} == {
        "wanted": 2,
        "answered": 2,
        "restarts": 0,
        "pids": [],
    }
    assert set(workers_of(gateway)) < set(children_of(gateway))


def test_memory_and_spool_are_those_of_one_gateway(gateway):
    limits = status_of(gateway)
    assert limits["spool"]["limit_bytes"] == 512 * 2**20
    memory = limits["requests"]["memory_limit_bytes"] + limits["queue"]["memory_limit_bytes"]
    assert abs(memory - budget_of(Settings())) <= 2


def test_events_of_workers_say_whose_they_are(gateway):
    opened = [line for line in gateway.lines if 'msg="spool open"' in line]
    assert sorted(re.search(r"worker=(\d)", line)[1] for line in opened) == ["0", "1"]
    assert sum("msg=listening" in line and "receivers" in line for line in gateway.lines) == 2


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_second_gateway_on_the_same_directory_does_not_start(gateway, count):
    env = EMBEDDED | {"WEB_CONCURRENCY": count}
    second = RunningGateway(Path(gateway.env["GATEWAY_DATA_DIR"]), env)
    try:
        assert second.process.wait(30) == 1
        assert str(gateway.process.pid) in second.wait_for_line("spool cannot be used")
        assert "worker started" not in second.log
    finally:
        second.kill()


def test_a_port_that_is_taken_ends_the_start_before_there_is_any_child(gateway, tmp_path):
    second = RunningGateway(tmp_path, TWO | {"PORT": str(gateway.http_port)})
    try:
        assert second.process.wait(30) == 1
        assert "set PORT" in second.wait_for_line("cannot listen")
        assert "worker started" not in second.log
    finally:
        second.kill()


def test_a_worker_that_dies_is_replaced_while_the_other_serves(gateway):
    victim, other = workers_of(gateway)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{victim}").exists())  # reaped, and so its sockets closed
    assert gateway.get("/live")[0] == 200
    eventually(lambda: status_of(gateway)["workers"]["answered"] == 2)
    assert victim not in workers_of(gateway)
    assert other in workers_of(gateway)
    assert status_of(gateway)["workers"]["restarts"] == 1
    assert "gateway_worker_restarts_total 1.0" in gateway.get("/metrics")[1]


def test_a_worker_whose_parent_does_not_answer_speaks_for_itself(gateway):
    gateway.signal(signal.SIGSTOP)
    try:
        status = status_of(gateway)
    finally:
        gateway.signal(signal.SIGCONT)
    assert status["workers"] == {"wanted": 2, "answered": 1}
    assert gateway.get("/ready")[0] == 200


def test_sigterm_ends_all_with_code_0_and_in_order(gateway):
    """The last test of this gateway."""
    children = children_of(gateway)
    assert len(children) == 3
    assert gateway.stop() == 0
    assert all(map(is_gone, children))
    log = gateway.log
    drained = [log.index(f"msg=stopping logger=gateway.app worker={n}") for n in (0, 1)]
    backend = log.index("name=embedded state=stopping")
    assert max(drained) < backend < log.index("msg=stopped logger=gateway.workers.parent")


def test_a_stop_in_the_midst_of_the_start_leaves_nobody(tmp_path):
    """That nobody outlives a parent that is killed is tested under load (``tests/faults``)."""
    gateway = RunningGateway(tmp_path, TWO)
    try:
        gateway.wait_for_line("worker started.*worker=1")
        children = children_of(gateway)
        assert gateway.stop() == 0
        eventually(lambda: all(map(is_gone, children)))
    finally:
        gateway.kill()


def test_a_tempo_that_cannot_be_run_ends_the_start_and_its_workers(tmp_path):
    env = TWO | {"TEMPO_MODE": "managed", "TEMPO_BIN": str(tmp_path / "absent")}
    gateway = RunningGateway(tmp_path / "data", env)
    try:
        assert gateway.process.wait(30) == 1
        gateway.wait_for_line(f"gateway: .*{tmp_path}/absent")
        assert "Traceback" not in gateway.log
        assert "level=warn" not in gateway.log  # what the parent ends itself is no news
    finally:
        gateway.kill()


def test_a_worker_that_cannot_start_ends_the_start(tmp_path):
    """Its spool is a file."""
    (tmp_path / "spool-1").write_text("")
    gateway = RunningGateway(tmp_path, TWO)
    try:
        assert gateway.process.wait(30) == 1
        gateway.wait_for_line("spool cannot be used")
        gateway.wait_for_line("gateway: worker 1 could not start")
        assert "backend started" not in gateway.log
    finally:
        gateway.kill()
