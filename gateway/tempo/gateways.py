"""Other gateways: what a relay delivers to, and what takes over from one that stops."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.access.handovers import HEADER, id_of
from gateway.access.platform import private_web_host, public_url
from gateway.access.tokens import authorization_for
from gateway.credentials import Token
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

    With a certificate of our own the gRPC port of ``web`` takes TLS only, under the name that the
    public has for it, and perhaps wants a certificate of its clients; the public URL has neither.
    """
    host = private_web_host(settings) if settings.tls_cert is None else None
    if host is not None:
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

    A gateway's OK is durable, so nothing is held for it. TEMPO_OTLP_ENDPOINT may name a stranger,
    who is not shown our tokens. Raises SettingsError as ``relay_target``.
    """
    if settings.tempo_otlp_endpoint:
        return external_tempo(settings, mode=MODE)
    exporter = deliver_to([relay_target(settings)], lambda tenant, _: own_headers(settings, tenant))
    return ExternalBackend(exporter, mode=MODE)


def own_headers(settings: Settings, tenant: str) -> Fields:
    """The app's gateway has the same tokens as its relay, unless a header says otherwise."""
    headers = settings.tempo_otlp_headers
    if any(name == "authorization" for name, _ in headers):
        return headers
    return (*headers, *_token_of(settings.ingest_tokens, tenant))


def _token_of(tokens: Sequence[Token], tenant: str) -> Fields:
    authorization = authorization_for(tokens, tenant)
    return () if authorization is None else (("authorization", authorization),)


HANDOVER_TIMEOUT_S = 4.0
"""Of one attempt: there is time for more than one."""


class HandoverExporter:
    """Hands spans over to another gateway, with a mark by which it takes a repetition once.

    A refusal gives nothing up, whatever it says: what answers may be no gateway at all, and the
    spans are still in the spool.
    """

    def __init__(self, base_url: str, tokens: Sequence[Token] = ()) -> None:
        """``tokens`` are those of the other gateway."""
        self._tokens = tokens
        url = base_url.removesuffix(TRACES_PATH) + TRACES_PATH
        self._exporter = OtlpHttpExporter(
            url, self._headers, settings="GATEWAY_HANDOVER_URL and GATEWAY_INGEST_TOKENS"
        )

    def _headers(self, tenant: str, payload: bytes) -> Fields:
        return ((HEADER, id_of(payload)), *_token_of(self._tokens, tenant))

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
    if url is None or url == OFF:
        return None
    return HandoverExporter(url, settings.ingest_tokens)
