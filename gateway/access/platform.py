"""Where the app's own containers are found, by what the platform tells each of them. Pure.

Scalingo names them as here; elsewhere the variables are missing, and nothing is derived.
"""

from __future__ import annotations

import re

from gateway.settings import Settings

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


def public_url(settings: Settings) -> str | None:
    """Of the app's HTTP router, such as ``https://shop.osc-fr1.scalingo.io``."""
    if _are_labels(settings.app, settings.region):
        return f"https://{settings.app}.{settings.region}.scalingo.io"
    return None


def private_web_host(settings: Settings) -> str | None:
    """Name of all ``web`` containers in the app's private network: one A record each, which live
    for 5 s. None where there is no such network.
    """
    if _are_labels(settings.application_id, settings.private_network_id):
        network = f"{settings.private_network_id}.private-network.internal"
        return f"web.{settings.application_id}.{network}"
    return None


def _are_labels(*texts: str | None) -> bool:
    """Fit for a host name. ``APP`` and the like are names that anybody may use for anything."""
    return all(text is not None and _LABEL.fullmatch(text) for text in texts)
