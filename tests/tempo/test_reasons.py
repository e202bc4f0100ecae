"""Reading why a child has died."""

from __future__ import annotations

import pytest

from gateway.tempo.reasons import CLUE_LIFE_S, likely_reason, weigh

LINES = {
    "port": 'level=error msg="module failed" err="error starting receiver: listen tcp'
    ' 127.0.0.1:19130: bind: address already in use"',
    "key": "  line 91: field frobnicate not found in type app.Config",
    "config": "failed parsing config: failed to parse configFile x.yaml: yaml: line 90: did not",
    "disk": 'level=error msg="failed to cut traces" err="error closing writer: write'
    ' /data/wal/0000000002: no space left on device"',
    "readonly": 'level=error err="mkdir /data/wal: read-only file system"',
    "permission": 'level=error err="failed to create store: mkdir /x: permission denied"',
    "memory": "fatal error: runtime: out of memory",
    "stack": "runtime: goroutine stack exceeds 1000000000-byte limit",
    "bucket": 'err="unexpected error from ListObjects on b: The specified bucket does not exist"',
    "keys": 'err="unexpected error from ListObjects on b: Access Denied."',
    "tls": 'err="unexpected error from ListObjects on b: http: server gave HTTP response to HTTPS'
    ' client"',
    "storage": 'err="failed to create store: unexpected error from ListObjects on b: dial"',
    "binary": 'level=error msg="cannot run the program" err="[Errno 8] Exec format error"',
    "crash": "panic: runtime error: index out of range",
}


def last_clue(*lines):
    clue = None
    for line in lines:
        clue = weigh(clue, line, 0.0)
    return clue


@pytest.mark.parametrize("key", LINES)
def test_real_lines_are_understood(key):
    clue = last_clue(LINES[key])
    assert clue is not None
    assert clue.key == key


def test_the_decisive_line_outlives_those_that_follow():
    noise = 'level=error msg="error processing requests" err="queue is stopped"'
    assert last_clue(LINES["port"], *[noise] * 100).key == "port"


def test_a_precise_line_is_believed_before_a_general_one():
    assert last_clue(LINES["config"], LINES["key"]).key == "key"
    assert last_clue(LINES["key"], LINES["config"]).key == "key"
    assert last_clue("panic: oh", LINES["memory"], "panic: oh").key == "memory"


def test_an_old_line_has_nothing_to_do_with_a_new_end():
    clue = weigh(None, LINES["port"], 0.0)
    assert likely_reason(clue, 0, CLUE_LIFE_S) == "a port that it needs is taken"
    assert "by itself" in likely_reason(clue, 0, CLUE_LIFE_S + 1)
    assert weigh(clue, "panic: oh", CLUE_LIFE_S + 1).key == "crash"


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "memory ran out"), (-11, "signal 11"), (0, "code 0 even when"), (3, "code 3")],
)
def test_without_a_word_the_exit_code_speaks(code, words):
    assert words in likely_reason(None, code, 0.0)
