"""Where Tempo keeps its traces, told to it by the variables that ``config/`` names. Pure."""

from __future__ import annotations

import json

from gateway.settings import Settings

AWS = "s3.amazonaws.com"
_IN_BUCKET = {
    "FLUSH_ON_STOP": "true",
    # Tempo 3 has no way to bring an unfinished block to the bucket when it ends, so the end waits
    # for it to be finished.
    "LIVE_BLOCK_DURATION": "10s",
    # After a start with an empty disk the newest traces are in the bucket only, where these are
    # looked for when they are older than this. For younger ones 3.x asks its memory only, so it has
    # to be sure to see a block in the bucket by then (60 s).
    "BACKEND_AFTER": "1m",
    "KEEP_BLOCKS": "3m",
    "LIVE_BACKEND_AFTER": "90s",
    "LIVE_KEEP_BLOCKS": "3m",
}


def storage_variables(settings: Settings) -> dict[str, str]:
    """For the environment of Tempo; the only place where the keys of the bucket are told on."""
    in_bucket = settings.tempo_storage == "s3"
    host, insecure = _endpoint(settings)
    return {
        "STORAGE": settings.tempo_storage,
        "S3_BUCKET": _quoted(settings.tempo_s3_bucket),
        "S3_ENDPOINT": _quoted(host),
        "S3_REGION": _quoted(settings.tempo_s3_region),
        "S3_ACCESS_KEY": _quoted(settings.tempo_s3_access_key),
        "S3_SECRET_KEY": _quoted(settings.tempo_s3_secret_key),
        "S3_PREFIX": _quoted((settings.tempo_s3_prefix or "").strip("/")),
        "S3_INSECURE": str(insecure).lower(),
        **(_IN_BUCKET if in_bucket else {}),
    }


def _endpoint(settings: Settings) -> tuple[str, bool]:
    """Host with port, as Tempo wants it, and whether it speaks plain HTTP."""
    told = settings.tempo_s3_endpoint
    if told is None:
        region = settings.tempo_s3_region
        return (f"s3.{region}.amazonaws.com" if region else AWS), settings.tempo_s3_insecure
    scheme, found, host = told.rpartition("://")
    return host, (scheme == "http" if found else settings.tempo_s3_insecure)


def _quoted(text: str | None) -> str:
    """As it stands between the double quotes of a YAML file, where Tempo puts it."""
    return json.dumps(text or "")[1:-1]
