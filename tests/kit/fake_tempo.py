"""A child for the supervisor with a will of its own: ``python -m tests.kit.fake_tempo``.

Serves ``/ready`` and ``/metrics`` on the HTTP port as its options say. Deeds that need a moment
are files in ``--will``: ``unready``, ``hang`` and ``die`` are obeyed as soon as they appear.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def main() -> None:
    options = _options()
    will: Path = options.will
    lives = _count_life(will)
    for line in options.say:
        print(line, file=sys.stderr, flush=True)
    if options.flood:
        sys.stderr.write("level=info msg=flood padding=" + "x" * 200 + "\n")
        sys.stderr.write(("level=info msg=flood padding=" + "x" * 200 + "\n") * options.flood)
        sys.stderr.write("y" * 300_000 + "\n")
        sys.stderr.flush()
    if options.exit is not None and lives <= options.exit_lives:
        sys.exit(options.exit)
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: _end(options))
    if options.take_port and lives == 1:
        _take(options.http_port)
    threading.Thread(target=_obey, args=(will,), daemon=True).start()
    if options.never_listens:
        while True:
            time.sleep(1)
    _serve(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--will", type=Path, required=True)
    parser.add_argument("--say", action="append", default=[], help="a line at the start")
    parser.add_argument("--flood", type=int, default=0, help="lines at the start")
    parser.add_argument("--ready-after", type=int, default=0, help="answers of 503 before")
    parser.add_argument("--never-listens", action="store_true")
    parser.add_argument("--exit", type=int, help="end at once with this code")
    parser.add_argument("--exit-lives", type=int, default=10**9, help="only in so many lives")
    parser.add_argument("--take-port", action="store_true", help="clash in the first life")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--flushed", help="said after SIGTERM, which is then not obeyed")
    parser.add_argument("--live-traces", default="0")
    return parser.parse_args()


def _count_life(will: Path) -> int:
    lives = will / "lives"
    with lives.open("a") as file:
        file.write(f"{os.getpid()} {' '.join(sys.argv[1:])}\n")
    return len(lives.read_text().splitlines())


def _take(port: int) -> None:
    """What Tempo does when somebody else has its port: complains, and ends with code 0."""
    with socket.create_server(("127.0.0.1", port)):
        error = f"listen tcp 127.0.0.1:{port}: bind: address already in use"
        print(f'level=error msg="module failed" err="{error}"', file=sys.stderr)
        for _ in range(50):
            print('level=error msg="error processing requests" err="queue is stopped"')
        sys.stdout.flush()
    sys.exit(0)


def _end(options: argparse.Namespace) -> None:
    if options.flushed:
        print(options.flushed, file=sys.stderr, flush=True)
    else:
        os._exit(0)


def _obey(will: Path) -> None:
    while True:
        if (will / "die").exists():
            (will / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        for line in sorted(will.glob("say-*")):
            print(line.read_text(), file=sys.stderr, flush=True)
            line.unlink()
        time.sleep(0.01)


def _serve(options: argparse.Namespace) -> None:
    asked = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[0] += self.path == "/ready"
            while (options.will / "hang").exists():
                time.sleep(0.01)
            if self.path == "/metrics":
                self._answer(200, f'live_traces{{tenant="a"}} {options.live_traces}\n')
            elif asked[0] <= options.ready_after or (options.will / "unready").exists():
                self._answer(503, "Ingester not ready: waiting")
            else:
                self._answer(200, "ready")

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", options.http_port), Handler).serve_forever()


if __name__ == "__main__":
    main()
