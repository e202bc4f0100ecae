"""``python -m gateway replay DIR``: sends dead letters to a gateway again.

They take the ordinary way in, so they are checked, spooled and delivered like anything else; a
file goes away only when the gateway has said that it took its spans.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.access.tokens import authorization_for
from gateway.credentials import Token
from gateway.otlp.reply import read_export_response
from gateway.pipeline.dead_letters import PAYLOAD_SUFFIX, REASON_SUFFIX

TIMEOUT_S = 30.0


class Replayed(NamedTuple):
    """How it went."""

    sent: int
    failed: int


def replay(
    directory: Path, url: str, say: Callable[[str], None], tokens: Sequence[Token] = ()
) -> Replayed:
    """Send every payload in ``directory``, oldest first, to ``url`` (of ``/v1/traces``), each with
    the token of its tenant.

    What stays is told to ``say``, one line each.
    """
    sent = failed = 0
    for path in sorted(directory.glob("*" + PAYLOAD_SUFFIX)):
        fault = _send(url, path, tokens)
        if fault is None:
            sent += 1
            path.unlink()
            path.with_suffix(REASON_SUFFIX).unlink(missing_ok=True)
        else:
            failed += 1
            say(f"{path.name}: {fault}")
    return Replayed(sent, failed)


def _send(url: str, path: Path, tokens: Sequence[Token]) -> str | None:
    """None when every span was taken, else why not."""
    headers = {"Content-Type": "application/x-protobuf"}
    try:
        tenant = json.loads(path.with_suffix(REASON_SUFFIX).read_text())["tenant"]
    except (OSError, ValueError, KeyError) as error:
        return f"its {REASON_SUFFIX} file, which names the tenant, cannot be read: {error!r}"
    if tenant:
        headers["X-Scope-OrgID"] = tenant
    authorization = authorization_for(tokens, tenant)
    if authorization is not None:
        headers["Authorization"] = authorization
    request = urllib.request.Request(url, path.read_bytes(), headers)  # noqa: S310 - as told
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            rejected, message = read_export_response(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return f"{url} answered {error.code}"
    except OSError as error:
        return f"{url} does not answer: {error}"
    return f"{rejected} spans rejected: {message}" if rejected else None
