"""Other gateways: what a relay delivers to, and what takes over from one that stops."""

from __future__ import annotations

from gateway.access.handovers import HEADER, id_of
from gateway.access.platform import private_web_host, public_url
from gateway.envelope import Fate, Outcome
from gateway.settings import OFF, Settings, SettingsError
from gateway.tempo.client import Fields, OtlpHttpExporter
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
    exporter = deliver_to([target], lambda *_: settings.tempo_otlp_headers)
    return ExternalBackend(exporter, mode=MODE)


HANDOVER_TIMEOUT_S = 4.0
"""Of one attempt: there is time for more than one."""


class HandoverExporter:
    """Hands spans over to another gateway, with a mark by which it takes a repetition once.

    It gives up nothing, whatever the answer: what answers may be no gateway at all, and the spans
    are still in the spool.
    """

    def __init__(self, base_url: str) -> None:
        url = base_url.removesuffix(TRACES_PATH) + TRACES_PATH
        self._exporter = OtlpHttpExporter(url, self._headers)

    def _headers(self, _tenant: str, payload: bytes) -> Fields:
        return ((HEADER, id_of(payload)),)

    async def export(self, tenant: str, payload: bytes, *, timeout_s: float) -> Outcome:
        timeout_s = min(timeout_s, HANDOVER_TIMEOUT_S)
        outcome = await self._exporter.export(tenant, payload, timeout_s=timeout_s)
        return outcome._replace(fate=Fate.RETRY) if outcome.fate is Fate.REFUSED else outcome

    async def close(self) -> None:
        await self._exporter.close()


def handover_exporter(settings: Settings) -> HandoverExporter | None:
    """To GATEWAY_HANDOVER_URL. Where it is not set and a platform throws the disk away with the
    container, to the app itself, whose router knows the containers that stay. Else None.
    """
    url = settings.handover_url
    if url is None and settings.container is not None:
        url = public_url(settings)
    return None if url is None or url == OFF else HandoverExporter(url)
