"""What a process can be: the gateway, or a relay in front of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from gateway.query.front import FRONT, RELAY_FRONT
from gateway.receivers.address import Address
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.tempo.backends import Backend


class Role(NamedTuple):
    """What tells one kind of process from another; all else is the same in all of them."""

    make_backend: Callable[[Settings], Backend]
    """Raises BinaryError, ConfigError or SettingsError."""
    address: Callable[[Settings], Address]
    answers_queries: bool
    front_page: str


# What knows Tempo is loaded when it is needed: who starts workers starts them first.


def _gateway_backend(settings: Settings) -> Backend:
    from gateway.tempo.backends import make_backend  # noqa: PLC0415

    return make_backend(settings)


def _relay_backend(settings: Settings) -> Backend:
    from gateway.tempo.gateways import relay_backend  # noqa: PLC0415

    return relay_backend(settings)


GATEWAY = Role(
    make_backend=_gateway_backend,
    address=lambda settings: Address(settings.host, settings.port, settings.grpc_port),
    answers_queries=True,
    front_page=FRONT,
)
RELAY = Role(
    make_backend=_relay_backend,
    # The platform gives its ``tcp`` process one port; TCP_GRPC_PORT is where it delivers to.
    address=lambda settings: Address(settings.host, None, settings.port, grpc_setting="PORT"),
    answers_queries=False,
    front_page=RELAY_FRONT,
)
ROLES = {"serve": GATEWAY, "relay": RELAY}
"""By command."""
