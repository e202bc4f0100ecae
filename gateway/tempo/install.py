"""``python -m gateway install-tempo``: fetches a release of Tempo, checks it, puts it in place.

Synchronous: it runs alone, at build time or by hand. Only the standard library's HTTP client is
used, which follows redirects and takes proxies from HTTPS_PROXY and NO_PROXY.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import platform
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

RELEASES = "https://github.com/grafana/tempo/releases/download"
CHECKSUMS = "SHA256SUMS"
BINARY = "tempo"

ATTEMPTS = 4
FIRST_DELAY_S = 1.0
SILENCE_S = 30.0
"""Longest wait for the next byte."""
MOST_S = 15 * 60.0
"""For one download. A build may take half an hour, and one that never ends tells nobody why."""
MOST_BYTES = 400 * 2**20
"""No release comes near this, nor what is in it; whoever sends more is not trusted further."""
_CHUNK_BYTES = 2**18

_SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "windows"}
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

Say = Callable[[str], None]


class InstallError(Exception):
    """What failed and what to do about it, in words. ``again``: another attempt may succeed."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Release(NamedTuple):
    """One archive of one release."""

    version: str
    asset: str
    base_url: str

    def url(self, name: str) -> str:
        return f"{self.base_url}/v{self.version}/{name}"


def release_for(version: str, base_url: str | None, *, system: str, machine: str) -> Release:
    """The archive for an operating system and a processor as ``platform`` names them."""
    try:
        kind = f"{_SYSTEMS[system]}_{_MACHINES[machine]}"
    except KeyError:
        raise InstallError(
            f"Tempo has no release for {system} on {machine}; build it from source and set"
            " TEMPO_BIN, or use a Tempo elsewhere (TEMPO_OTLP_ENDPOINT)"
        ) from None
    return Release(version, f"tempo_{version}_{kind}.tar.gz", (base_url or RELEASES).rstrip("/"))


def install(
    version: str,
    directory: Path,
    *,
    base_url: str | None,
    say: Say,
    silence_s: float = SILENCE_S,
    first_delay_s: float = FIRST_DELAY_S,
) -> Path:
    """Put the binary of ``version`` into ``directory``, whole or not at all; returns its path.

    Does nothing when that version is there. ``base_url`` is a mirror that has the files under
    ``v<version>/`` as GitHub's releases do. Raises InstallError.
    """
    release = release_for(version, base_url, system=platform.system(), machine=platform.machine())
    try:
        return _install(release, directory, say, silence_s, first_delay_s)
    except OSError as error:  # the network's are InstallErrors by now
        raise InstallError(f"{directory} cannot be written: {error}; is there room?") from error


def _install(
    release: Release, directory: Path, say: Say, silence_s: float, first_delay_s: float
) -> Path:
    version = release.version
    binary, note = directory / BINARY, directory / f"{BINARY}.version"
    if binary.is_file() and note.is_file() and note.read_text().strip() == version:
        say(f"Tempo {version} is there: {binary}")
        return binary
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".install-") as scratch:
        fresh = _fetch_binary(release, Path(scratch), say, silence_s, first_delay_s)
        note.unlink(missing_ok=True)  # never a note that tells of another binary
        fresh.replace(binary)
    note.write_text(version + "\n")
    say(f"installed Tempo {version}: {binary}")
    return binary


def _fetch_binary(
    release: Release, scratch: Path, say: Say, silence_s: float, first_delay_s: float
) -> Path:
    """Download, verify and unpack; tried again for what may pass."""
    delay_s = first_delay_s
    for left in reversed(range(ATTEMPTS)):
        try:
            return _attempt(release, scratch, say, silence_s)
        except InstallError as error:
            if not error.again or not left:
                raise
            say(f"{error}; again in {delay_s:g} s")
            time.sleep(delay_s)
            delay_s *= 2
    raise AssertionError("the last attempt returns or raises")


def _attempt(release: Release, scratch: Path, say: Say, silence_s: float) -> Path:
    url = release.url(release.asset)
    expected = _expected_checksum(release, silence_s)
    archive, found = _download(url, scratch / "archive", say, silence_s)
    if found != expected:
        raise InstallError(
            f"{url} has SHA-256 {found}, but {CHECKSUMS} says {expected}; it is not installed:"
            " the mirror or the way to it is not sound"
        )
    return _unpack(archive, scratch / BINARY)


def _expected_checksum(release: Release, silence_s: float) -> str:
    url = release.url(CHECKSUMS)
    with _open(url, silence_s) as answer, _in_words(url):
        text = answer.read(2**20).decode(errors="replace")
    for line in text.splitlines():
        checksum, _, name = line.partition(" ")
        if name.strip().lstrip("*") == release.asset:
            return checksum.lower()
    raise InstallError(
        f"{url} does not list {release.asset}: this version has no such archive (since 2.8 there"
        " is none for macOS); choose another with TEMPO_VERSION"
    )


def _download(url: str, path: Path, say: Say, silence_s: float) -> tuple[Path, str]:
    """Stream ``url`` into ``path``; returns it with its SHA-256 in hex."""
    digest, size, began = hashlib.sha256(), 0, time.monotonic()
    with _open(url, silence_s) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        progress = _Progress(url, total, say)
        while chunk := _read(answer, url):
            size += len(chunk)
            if size > MOST_BYTES:
                raise InstallError(f"{url} is larger than any release of Tempo; check the URL")
            if time.monotonic() - began > MOST_S:
                raise InstallError(
                    f"{url} sent {size} bytes in {MOST_S / 60:g} minutes, which is too slow; set"
                    " TEMPO_DOWNLOAD_URL to a mirror that is nearer"
                )
            digest.update(chunk)
            file.write(chunk)
            progress.show(size)
    if total and size < total:
        raise InstallError(f"{url} ended after {size} of {total} bytes", again=True)
    return path, digest.hexdigest()


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    """What has come, up to a chunk; empty at the end."""
    with _in_words(url):
        return answer.read1(_CHUNK_BYTES)


class _Progress:
    """A bar in words: one line for each tenth, so that it reads well in a build log too."""

    def __init__(self, url: str, total: int, say: Say) -> None:
        self._total, self._say, self._shown = total, say, 0
        say(f"downloading {url}" + (f", {total / 2**20:.0f} MiB" if total else ""))

    def show(self, size: int) -> None:
        tenths = size * 10 // self._total if self._total else 0
        if tenths > self._shown:
            self._shown = tenths
            self._say(f"[{'#' * tenths:<10}] {size / 2**20:.0f} MiB")


@contextmanager
def _open(url: str, silence_s: float) -> Iterator[http.client.HTTPResponse]:
    if not url.startswith(("https://", "http://")):
        raise InstallError(f"{url} is no http or https URL; check TEMPO_DOWNLOAD_URL")
    with _in_words(url):
        # Not urlopen, which would go on with the proxies of its first call.
        answer = urllib.request.build_opener().open(url, timeout=silence_s)
    with answer:
        yield answer


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    """Turns what the network does into InstallError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        hint = (
            "; is there such a version? See TEMPO_VERSION and TEMPO_DOWNLOAD_URL"
            if error.code == http.client.NOT_FOUND
            else ""
        )
        again = error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in (408, 429)
        raise InstallError(f"{url} answered {error.code}{hint}", again=again) from None
    except TimeoutError:
        raise InstallError(f"{url} sends nothing", again=True) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InstallError(
            f"{url} cannot be read: {reason}; behind a proxy set HTTPS_PROXY, without a way out"
            " set TEMPO_DOWNLOAD_URL to a mirror",
            again=True,
        ) from None


def _unpack(archive: Path, target: Path) -> Path:
    """Only the member ``tempo``, only if it is a plain file; nothing else leaves the archive."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = next((m for m in tar if m.name in (BINARY, f"./{BINARY}")), None)
            source = tar.extractfile(member) if member is not None and member.isreg() else None
            if member is None or source is None or member.size > MOST_BYTES:
                raise InstallError("the archive holds no plain file 'tempo'; is it a release?")
            _copy(source, target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InstallError(f"the archive cannot be unpacked: {error}") from error
    return target


def _copy(source: IO[bytes], target: Path) -> None:
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
    target.chmod(0o755)
