"""An S3-compatible server on loopback: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from typing import IO, NamedTuple

from tests.kit.gateway import eventually

ACCESS_KEY, SECRET_KEY = "access-key", 'secret"key\\'
"""Any are taken; these would break a configuration that they are put into carelessly."""
_LISTENING = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")
_KEY = re.compile("<Key>(.*?)</Key>")


class S3(NamedTuple):
    """A running server with one bucket."""

    address: str
    """Host and port."""
    bucket: str

    @property
    def settings(self) -> dict[str, str]:
        """Of a gateway whose Tempo uses the bucket."""
        return {
            "TEMPO_STORAGE": "s3",
            "TEMPO_S3_ENDPOINT": f"http://{self.address}",
            "TEMPO_S3_BUCKET": self.bucket,
            "TEMPO_S3_REGION": "us-east-1",
            "TEMPO_S3_ACCESS_KEY": ACCESS_KEY,
            "TEMPO_S3_SECRET_KEY": SECRET_KEY,
        }

    def keys(self) -> list[str]:
        """What is in the bucket."""
        url = f"http://{self.address}/{self.bucket}?list-type=2"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return _KEY.findall(answer.read().decode())


@contextlib.contextmanager
def running_s3(bucket: str = "traces") -> Iterator[S3]:
    """Empty at first; gone with all it holds at the end."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            server = S3(f"127.0.0.1:{eventually(lambda: _port(log))}", bucket)
            create = urllib.request.Request(f"http://{server.address}/{bucket}", method="PUT")
            urllib.request.urlopen(create, timeout=10).close()
            yield server
        finally:
            process.kill()
            process.wait()


def _port(log: IO[str]) -> str | None:
    log.seek(0)
    match = _LISTENING.search(log.read())
    return match and match[1]
