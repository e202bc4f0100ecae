"""What the headers of an OTLP request mean; pure, the same for every transport."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.credentials import TENANT_RULE, is_tenant
from gateway.errors import Cause, Refused
from gateway.otlp.media import Media

TRACES_PATH = "/v1/traces"
EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

CONTENT_TYPES = {
    Media.PROTOBUF: "application/x-protobuf",
    Media.JSON: "application/json",
}
_MEDIA = {content_type: media for media, content_type in CONTENT_TYPES.items()}
ACCEPTED_TYPES = ", ".join(_MEDIA)

_QUOTED_CHARS = 100


def media_of(content_type: str | None) -> Media | None:
    """The form of the body by its Content-Type, whatever its parameters; None for any other."""
    if content_type is None:
        return None
    # nearly all clients send one of the two as it stands
    return _MEDIA.get(content_type) or _MEDIA.get(content_type.partition(";")[0].strip().lower())


def check_path(transport: str, path: str) -> None:
    """Raises Refused for anything but the export of traces."""
    if transport == "grpc":
        if path != EXPORT_METHOD:
            message = f"{quoted(path)} is not served; this port takes traces by {EXPORT_METHOD}"
            raise Refused(Cause.NOT_FOUND, message)
    elif path.removesuffix("/") != TRACES_PATH:
        message = f"{quoted(path)} is not served; the gateway takes traces only: POST {TRACES_PATH}"
        raise Refused(Cause.NOT_FOUND, message)


def check_method(method: str) -> None:
    if method != "POST":
        raise Refused(Cause.METHOD, f"{quoted(method)} is not possible here; send a POST")


def check_media(content_type: str | None) -> Media:
    media = media_of(content_type)
    if media is None:
        found = "no Content-Type" if content_type is None else quoted(content_type)
        raise Refused(
            Cause.CONTENT_TYPE, f"found {found}; send Content-Type: {' or '.join(_MEDIA)}"
        )
    return media


def check_tenant(values: Sequence[str]) -> str:
    """The tenant out of all values of X-Scope-OrgID; empty where there is none."""
    tenants = [value for value in values if value]
    if not tenants:
        return ""
    if len(tenants) > 1:
        raise Refused(Cause.MALFORMED, "X-Scope-OrgID is there more than once; send one tenant")
    tenant = tenants[0]
    if not is_tenant(tenant):
        raise Refused(
            Cause.MALFORMED, f"X-Scope-OrgID {quoted(tenant)} is not a tenant: send {TENANT_RULE}"
        )
    return tenant


def quoted(text: str) -> str:
    """What a client sent, fit for a message: short, ASCII, no control characters."""
    cut = text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "..."
    return ascii(cut)
