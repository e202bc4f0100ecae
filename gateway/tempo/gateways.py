"""Another gateway as the backend: what a relay delivers to."""

from __future__ import annotations

from gateway.access.platform import private_web_host, public_url
from gateway.settings import Settings, SettingsError
from gateway.tempo.external import ExternalBackend, deliver_to, external_tempo

MODE = "relay"
TRACES_PATH = "/v1/traces"


def relay_target(settings: Settings) -> str:
    """Where the relay of an app on the platform finds the app's ``web`` containers: in the private
    network by gRPC, else at the app's public URL by OTLP/HTTP, since the platform's router does
    not speak gRPC. Raises SettingsError where it is not told of either.
    """
    if (host := private_web_host(settings)) is not None:
        return f"http://{host}:{settings.grpc_port}"
    if (url := public_url(settings)) is not None:
        return url + TRACES_PATH
    raise SettingsError([_UNKNOWN])


_UNKNOWN = (
    "TEMPO_OTLP_ENDPOINT is not set: the relay needs to know where to deliver, such as"
    " http://gateway:4317 (gRPC) or https://gateway/v1/traces (OTLP/HTTP). On the platform"
    " SCALINGO_APPLICATION_ID with SCALINGO_PRIVATE_NETWORK_ID, or APP with REGION_NAME, say so"
)


def relay_backend(settings: Settings) -> ExternalBackend:
    """What the relay delivers to. TEMPO_OTLP_ENDPOINT wins; then it may be a Tempo as well.

    A gateway's OK is durable, so nothing is held for it. Raises SettingsError as ``relay_target``.
    """
    if settings.tempo_otlp_endpoint:
        return external_tempo(settings, mode=MODE)
    target = relay_target(settings)
    exporter = deliver_to([target], lambda _tenant: settings.tempo_otlp_headers)
    return ExternalBackend(exporter, mode=MODE)
