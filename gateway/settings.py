"""Every setting, once: its name, default, unit, meaning, and how its text is read.

Nobody else reads the environment. ``Settings.load`` reads all of it and reports every fault at
once; ``describe`` is what ``python -m gateway settings`` and ``docs/settings.md`` print.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway.credentials import Token, TokenFault, parse_tokens

KIB, MIB, GIB = 2**10, 2**20, 2**30

OFF = "off"
"""Instead of a URL: none, also where one would be derived."""

_SIZE = re.compile(r"(\d+)\s*([KMGT]i?B?|B)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _SIZE_UNITS |= {f"{_letter}IB": 2 ** (10 * _power), f"{_letter}I": 2 ** (10 * _power)}
    _SIZE_UNITS |= {f"{_letter}B": 10 ** (3 * _power), _letter: 10 ** (3 * _power)}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}


class SettingsError(Exception):
    """One or more settings cannot be used; each fault is a line with name, value and remedy."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Kind(NamedTuple):
    """How the text of a setting is read: ``read`` raises ValueError, ``accepts`` says what fits."""

    read: Callable[[str], Any]
    accepts: str
    show: Callable[[Any], str] = str


def parse_size(text: str) -> int:
    """``64MiB``, ``3MB``, ``1048576`` -> bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").upper()]


def parse_duration(text: str) -> float:
    """``200ms``, ``5s``, ``1h30m``, ``0`` -> seconds."""
    text = text.strip()
    if text == "0":
        return 0.0
    if _DURATION.fullmatch(text) is None:
        raise ValueError(text)
    return sum(float(n) * _DURATION_UNITS[unit] for n, unit in _DURATION_PART.findall(text))


def format_size(size: int) -> str:
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    return f"{seconds:g}s"


def _bounded(low: int, high: int | None) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError(text)
        return value

    return read


def _integer(low: int, high: int | None = None) -> Kind:
    span = f"a whole number from {low}" + (f" to {high}" if high is not None else "")
    return Kind(_bounded(low, high), span)


def _size(low: int = 0) -> Kind:
    def read(text: str) -> int:
        value = parse_size(text)
        if value < low:
            raise ValueError(text)
        return value

    least = f", at least {format_size(low)}" if low else ""
    return Kind(read, f"a size such as 64MiB, 3MB or 1048576{least}", format_size)


def _choice(*words: str) -> Kind:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return Kind(read, "one of " + ", ".join(words))


def _switch() -> Kind:
    words = {"on": True, "true": True, "1": True, "yes": True}
    words |= {"off": False, "false": False, "0": False, "no": False}

    def read(text: str) -> bool:
        try:
            return words[text.lower()]
        except KeyError:
            raise ValueError(text) from None

    return Kind(read, "on or off", lambda value: "on" if value else "off")


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _read_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in _items(text):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ValueError(text)
        pairs.append((key.strip().lower(), value.strip()))
    return tuple(pairs)


def _read_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError(text)
    return text.rstrip("/")


def _read_url_or_off(text: str) -> str:
    return OFF if text.lower() == OFF else _read_url(text)


def _read_endpoint(text: str) -> str:
    if not re.fullmatch(r"(https?://)?[^\s/@]+/?", text):
        raise ValueError(text)
    return text.rstrip("/")


def _read_urls(text: str) -> tuple[str, ...]:
    return tuple(_read_url(item) for item in _items(text))


_HANDED_ON = re.compile(
    "PATH|HOME|TMPDIR|TZ|LANG|LC_ALL|LD_LIBRARY_PATH|SSL_CERT_FILE|SSL_CERT_DIR"
    "|(http|https|no)_proxy|(HTTP|HTTPS|NO)_PROXY|AWS_[A-Z_]+|GOGC|GOMEMLIMIT|GOMAXPROCS|GODEBUG"
)


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child process gets of our environment: where things are, the way out, and Go's own
    settings. Nothing else, since tokens and keys are in it too.
    """
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if _HANDED_ON.fullmatch(name)}


_TEXT = Kind(str, "text")
_PATH = Kind(Path, "a path")
_DURATION_KIND = Kind(parse_duration, "a duration such as 200ms, 5s or 1h", format_duration)
_LIST = Kind(_items, "a comma separated list", ",".join)
_URL = Kind(_read_url, "a URL such as http://tempo:3200")
_URLS = Kind(_read_urls, "URLs such as http://tempo:4317, comma separated", ",".join)
_URL_OR_OFF = Kind(_read_url_or_off, f"a URL such as https://gateway.example.com, or {OFF}")
_ENDPOINT = Kind(
    _read_endpoint, "host, host:port, http://host:port or https://host:port, without a path"
)
_PAIRS = Kind(
    _read_pairs,
    "key=value pairs, comma separated",
    lambda pairs: ",".join(f"{key}={value}" for key, value in pairs),
)


_TOKENS = Kind(
    parse_tokens,
    "token or tenant=token, comma separated",
    lambda tokens: "***" if tokens else "",
)
_PEM = Kind(
    str,
    "a path, PEM text, or base64 of PEM",
    lambda text: text if len(text) < 200 and "-----" not in text else "(PEM)",
)
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSW|HEADER|CERT")
"""Of a misspelt name: what it holds is not echoed."""


class Spec(NamedTuple):
    """What is known of one setting beside its value."""

    name: str
    kind: Kind
    meaning: str
    secret: bool


def _setting(name: str, default: Any, kind: Kind, meaning: str, *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"spec": Spec(name, kind, meaning, secret)})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The gateway's settings. ``None`` means not set; sizes are bytes, durations seconds."""

    port: int = _setting("PORT", 3200, _integer(0, 65535), "HTTP port; 0 takes any free one")
    grpc_port: int = _setting(
        "TCP_GRPC_PORT", 4317, _integer(0, 65535), "gRPC port; 0 takes any free one"
    )
    host: str = _setting("GATEWAY_HOST", "0.0.0.0", _TEXT, "address that both ports listen on")
    data_dir: Path = _setting(
        "GATEWAY_DATA_DIR",
        Path("data"),
        _PATH,
        "spool, dead letters, and the backend's files where storage is local",
    )
    log_level: str = _setting(
        "LOG_LEVEL", "info", _choice("debug", "info", "warning", "error"), "least level logged"
    )
    log_format: str = _setting(
        "LOG_FORMAT",
        "logfmt",
        _choice("logfmt", "json"),
        "one event a line on stderr, in this form",
    )

    grpc_engine: str = _setting(
        "GATEWAY_GRPC_ENGINE",
        "own",
        _choice("own", "grpcio"),
        "own: one server of our own, which speaks every protocol on both ports; grpcio: the servers"
        " of aiohttp and grpcio, one protocol a port",
    )

    ingest_tokens: tuple[Token, ...] = _setting(
        "GATEWAY_INGEST_TOKENS",
        (),
        _TOKENS,
        "who may send spans: each of them with a token, which may stand for a tenant; everybody if"
        " not set",
        secret=True,
    )
    query_tokens: tuple[Token, ...] = _setting(
        "GATEWAY_QUERY_TOKENS",
        (),
        _TOKENS,
        "who may read traces, metrics and the status, in the same way",
        secret=True,
    )

    web_concurrency: int = _setting(
        "WEB_CONCURRENCY",
        1,
        _integer(1, 64),
        "worker processes, each of which can use one core. They share the ports; memory, spool and"
        " what Tempo is given at once are divided by their number. Ignored where"
        " WEB_CONCURRENCY_SET_BY is set",
    )
    web_concurrency_set_by: str | None = _setting(
        "WEB_CONCURRENCY_SET_BY",
        None,
        _TEXT,
        "set by a buildpack that has guessed WEB_CONCURRENCY, which is nobody's wish",
    )
    tls_cert: str | None = _setting(
        "GATEWAY_TLS_CERT",
        None,
        _PEM,
        "certificate of the gRPC port, with those above it; the port then takes TLS only",
    )
    tls_key: str | None = _setting(
        "GATEWAY_TLS_KEY", None, _PEM, "key of that certificate, not encrypted", secret=True
    )
    tls_client_ca: str | None = _setting(
        "GATEWAY_TLS_CLIENT_CA",
        None,
        _PEM,
        "mutual TLS: who has to have signed the certificate that each client then needs",
    )

    max_request_bytes: int = _setting(
        "GATEWAY_MAX_REQUEST_BYTES",
        64 * MIB,
        _size(1 * KIB),
        "largest request, also after decompression",
    )
    max_span_bytes: int | None = _setting(
        "GATEWAY_MAX_SPAN_BYTES",
        None,
        _size(1 * KIB),
        "largest span that is taken, with its resource; if not set, the largest message that a"
        " managed Tempo takes (10MiB in 512MB, at most 16MiB), 16MiB for another backend",
    )
    batch_spans: int = _setting(
        "GATEWAY_BATCH_SPANS", 8192, _integer(1), "spans at which a batch is sent"
    )
    batch_bytes: int = _setting(
        "GATEWAY_BATCH_BYTES", 3 * MIB, _size(1 * KIB), "size at which a batch is sent"
    )
    batch_timeout_s: float = _setting(
        "GATEWAY_BATCH_TIMEOUT", 0.2, _DURATION_KIND, "age at which a batch is sent"
    )
    memory_bytes: int | None = _setting(
        "GATEWAY_MEMORY_BYTES",
        None,
        _size(1 * MIB),
        "budget of everything held in memory; a quarter of the container's memory if not set",
    )
    spool_bytes: int = _setting(
        "GATEWAY_SPOOL_BYTES", 512 * MIB, _size(), "cap of the disk spool; 0 turns it off"
    )
    spool_fsync: bool = _setting(
        "GATEWAY_SPOOL_FSYNC",
        False,
        _switch(),
        "on: an answer waits until the disk has the spans, so they survive a crash of the machine",
    )
    hold_time_s: float | None = _setting(
        "GATEWAY_HOLD_TIME",
        None,
        _DURATION_KIND,
        "how long what Tempo has accepted stays in the spool; follows the rendered configuration"
        " if not set, 0s for an external Tempo",
    )
    drain_timeout_s: float = _setting(
        "GATEWAY_DRAIN_TIMEOUT", 20.0, _DURATION_KIND, "from SIGTERM to exit"
    )
    handover_url: str | None = _setting(
        "GATEWAY_HANDOVER_URL",
        None,
        _URL_OR_OFF,
        "gateway that gets what is left at the end, by OTLP/HTTP; on the platform the app's own"
        " public URL if not set, elsewhere none",
    )

    tempo_mode: str = _setting(
        "TEMPO_MODE",
        "auto",
        _choice("auto", "managed", "external", "embedded"),
        "auto: external if an endpoint is set, else managed if a binary is found, else embedded",
    )
    tempo_bin: Path | None = _setting(
        "TEMPO_BIN", None, _PATH, "the Tempo binary; ./bin/tempo, then the PATH if not set"
    )
    tempo_version: str = _setting(
        "TEMPO_VERSION",
        "2.10.8",
        Kind(lambda text: text.removeprefix("v"), "a version such as 2.10.8"),
        "release that install-tempo fetches",
    )
    tempo_download_url: str | None = _setting(
        "TEMPO_DOWNLOAD_URL", None, _URL, "mirror for install-tempo; GitHub's releases if not set"
    )
    tempo_otlp_endpoint: tuple[str, ...] = _setting(
        "TEMPO_OTLP_ENDPOINT",
        (),
        _URLS,
        "external Tempo: http://host:4317 (gRPC) or https://host/v1/traces (OTLP/HTTP)",
    )
    tempo_otlp_headers: tuple[tuple[str, str], ...] = _setting(
        "TEMPO_OTLP_HEADERS", (), _PAIRS, "headers sent with each delivery", secret=True
    )
    tempo_query_url: str | None = _setting(
        "TEMPO_QUERY_URL", None, _URL, "external Tempo: base URL of its HTTP API"
    )
    tempo_config: Path | None = _setting(
        "TEMPO_CONFIG",
        None,
        _PATH,
        "a Tempo configuration of your own, instead of the rendered one",
    )
    tempo_retention_s: float = _setting(
        "TEMPO_RETENTION", 48 * 3600.0, _DURATION_KIND, "how long traces are kept"
    )
    tempo_metrics: str = _setting(
        "TEMPO_METRICS",
        "auto",
        _choice("auto", "on", "off"),
        "TraceQL metrics over the last hour by a managed Tempo 2.x, which nearly doubles its work;"
        " auto: in a container of 1GiB or more. 3.x has them always",
    )
    tempo_storage: str = _setting(
        "TEMPO_STORAGE",
        "local",
        _choice("local", "s3"),
        "where a managed Tempo keeps its traces: under GATEWAY_DATA_DIR, or in a bucket",
    )
    tempo_s3_bucket: str | None = _setting("TEMPO_S3_BUCKET", None, _TEXT, "the bucket; must exist")
    tempo_s3_endpoint: str | None = _setting(
        "TEMPO_S3_ENDPOINT",
        None,
        _ENDPOINT,
        "where the bucket is; AWS if not set, in the region if one is set",
    )
    tempo_s3_region: str | None = _setting(
        "TEMPO_S3_REGION", None, _TEXT, "region of the bucket, where its owner wants one"
    )
    tempo_s3_access_key: str | None = _setting(
        "TEMPO_S3_ACCESS_KEY",
        None,
        _TEXT,
        "if not set, AWS_ACCESS_KEY_ID or what the machine is allowed to",
        secret=True,
    )
    tempo_s3_secret_key: str | None = _setting(
        "TEMPO_S3_SECRET_KEY", None, _TEXT, "belongs to TEMPO_S3_ACCESS_KEY", secret=True
    )
    tempo_s3_prefix: str | None = _setting(
        "TEMPO_S3_PREFIX", None, _TEXT, "folder in the bucket, so that others can use it too"
    )
    tempo_s3_insecure: bool = _setting(
        "TEMPO_S3_INSECURE",
        False,
        _switch(),
        "on: plain HTTP, where TEMPO_S3_ENDPOINT does not say http:// or https://",
    )

    container_memory: int | None = _setting(
        "CONTAINER_MEMORY", None, _size(), "set by the platform: memory of the container"
    )
    container: str | None = _setting(
        "CONTAINER", None, _TEXT, "set by the platform: name of the container, such as web-1"
    )
    app: str | None = _setting("APP", None, _TEXT, "set by the platform: name of the app")
    region: str | None = _setting(
        "REGION_NAME", None, _TEXT, "set by the platform: region that the app runs in"
    )
    application_id: str | None = _setting(
        "SCALINGO_APPLICATION_ID", None, _TEXT, "set by the platform: id of the app"
    )
    private_network_id: str | None = _setting(
        "SCALINGO_PRIVATE_NETWORK_ID",
        None,
        _TEXT,
        "set by the platform: private network of the app, where it has one",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises SettingsError that lists every fault."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        faults: list[str] = []
        for field, spec in _specs(cls):
            text = environ.get(spec.name, "").strip()
            if not text:  # an empty variable is how platforms unset one
                continue
            try:
                values[field] = spec.kind.read(text)
            except TokenFault as fault:
                faults.append(f"{spec.name}: {fault}")
            except ValueError:
                shown = "(secret)" if spec.secret else repr(text)
                faults.append(f"{spec.name}={shown}: expected {spec.kind.accepts}")
        faults += _unknown_names(environ, [spec.name for _, spec in _specs(cls)])
        if faults:
            raise SettingsError(faults)
        settings = cls(**values)
        faults = settings._contradictions()
        if faults:
            raise SettingsError(faults)
        return settings

    @property
    def has_tenants(self) -> bool:
        """True where some token stands for a tenant, so that the backend must keep them apart."""
        return any(token.tenant for token in (*self.ingest_tokens, *self.query_tokens))

    def _contradictions(self) -> list[str]:
        faults = []
        if self.tempo_mode == "external" and not self.tempo_otlp_endpoint:
            faults.append(
                "TEMPO_MODE='external': needs TEMPO_OTLP_ENDPOINT, such as http://tempo:4317"
            )
        if (self.tls_cert is None) is not (self.tls_key is None):
            there, missing = "GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY"
            if self.tls_cert is None:
                there, missing = missing, there
            faults.append(f"{there} is set and {missing} is not: set both or neither")
        elif self.tls_client_ca is not None and self.tls_cert is None:
            faults.append(
                "GATEWAY_TLS_CLIENT_CA is set and GATEWAY_TLS_CERT is not: without TLS no client"
                " shows a certificate"
            )
        return faults + self._storage_faults()

    def _storage_faults(self) -> list[str]:
        """What would have traces kept elsewhere than where somebody thinks they are."""
        faults = []
        if self.tempo_storage == "s3" and not self.tempo_s3_bucket:
            faults.append("TEMPO_STORAGE='s3': needs TEMPO_S3_BUCKET")
        elsewhere = self.tempo_mode == "auto" and self.tempo_otlp_endpoint
        if self.tempo_storage == "s3" and (elsewhere or self.tempo_mode not in {"auto", "managed"}):
            mode = "external" if elsewhere else self.tempo_mode
            faults.append(
                "TEMPO_STORAGE='s3': is for the Tempo that the gateway runs (TEMPO_MODE='managed'),"
                f" and this one is {mode}"
            )
        if self.tempo_storage == "local" and self.tempo_s3_bucket:
            faults.append(
                f"TEMPO_S3_BUCKET={self.tempo_s3_bucket!r}: is not used with TEMPO_STORAGE='local';"
                " set TEMPO_STORAGE='s3', or unset the bucket"
            )
        if bool(self.tempo_s3_access_key) != bool(self.tempo_s3_secret_key):
            faults.append("TEMPO_S3_ACCESS_KEY and TEMPO_S3_SECRET_KEY: set both or neither")
        if self.tempo_s3_insecure and (self.tempo_s3_endpoint or "").startswith("https://"):
            faults.append(
                f"TEMPO_S3_INSECURE='on': contradicts TEMPO_S3_ENDPOINT={self.tempo_s3_endpoint!r}"
            )
        return faults

    @property
    def workers(self) -> int:
        """How many processes are to take spans."""
        return 1 if self.web_concurrency_set_by else self.web_concurrency

    def describe(self) -> Iterator[tuple[Spec, str, str]]:
        """Each setting with its current value and its default as text; secrets are masked."""
        for field, spec in _specs(type(self)):
            default = next(f.default for f in dataclasses.fields(self) if f.name == field)
            value = getattr(self, field)
            shown = "***" if spec.secret and value else _shown(spec, value)
            yield spec, shown, _shown(spec, default)


def _shown(spec: Spec, value: Any) -> str:
    return "" if value is None else spec.kind.show(value)


def _specs(cls: type[Settings]) -> Iterator[tuple[str, Spec]]:
    for field in dataclasses.fields(cls):
        yield field.name, field.metadata["spec"]


def _unknown_names(environ: Mapping[str, str], known: list[str]) -> Iterator[str]:
    for name in sorted(environ):
        if name.startswith(("GATEWAY_", "TEMPO_")) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "see python -m gateway settings"
            shown = "(secret)" if _SECRET_NAME.search(name) else repr(environ[name])
            yield f"{name}={shown}: no such setting; {hint}"
