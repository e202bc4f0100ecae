"""Commands and exit codes: 0 fine, 1 failed while running, 2 wrong usage or settings."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Coroutine, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.settings import Settings, SettingsError
from gateway.telemetry import logs

FINE, FAILED, WRONG = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
    except SettingsError as error:
        return _wrong_settings(error)
    match options.command:
        case "settings":
            return show_settings(settings)
        case "version":
            return show_versions(settings)
        case "install-tempo":
            return install_tempo(settings, options.version, options.dir)
        case "replay":
            return replay_dead_letters(settings, options.directory, options.to)
        case "worker":
            return work(settings, options)
        case _:
            return serve(settings, options.command or "serve")


def _wrong_settings(error: SettingsError) -> int:
    for fault in error.faults:
        print(f"settings: {fault}", file=sys.stderr)
    return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway", description="An OTLP gateway in front of Grafana Tempo."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the gateway (the default)")
    commands.add_parser(
        "relay", help="only take spans, on PORT, and deliver them to another gateway"
    )
    commands.add_parser("settings", help="every setting with its value, default and meaning")
    commands.add_parser("version", help="versions of the gateway and of what it runs on")
    install = commands.add_parser(
        "install-tempo", help="fetch a release of Tempo, check it and put it in place"
    )
    install.add_argument("--version", metavar="V", help="default: TEMPO_VERSION")
    install.add_argument("--dir", type=Path, default=Path("bin"), metavar="DIR")
    replay = commands.add_parser("replay", help="send dead letters to a running gateway again")
    replay.add_argument("directory", type=Path, metavar="DIR")
    replay.add_argument(
        "--to", metavar="URL", help="the gateway to send to; default: the one on PORT here"
    )
    worker = commands.add_parser("worker")  # not in the help: WEB_CONCURRENCY is for people
    worker.add_argument("--role", required=True)
    for number in ("number", "count", "link", "grpc-port"):
        worker.add_argument(f"--{number}", type=int, required=True)
    worker.add_argument("--http-port", type=int)
    return parser


# Each command imports what it needs: `settings` shall not wait for a gRPC library to load.


def serve(settings: Settings, role: str) -> int:
    """Be ``serve``, the gateway, or ``relay``, until a signal ends it."""
    logs.configure(settings.log_level, settings.log_format)
    from gateway.access.tls import load_tls  # noqa: PLC0415

    try:
        load_tls(settings)  # before there are any workers, who would all say the same
    except SettingsError as error:
        return _wrong_settings(error)
    if settings.workers > 1:
        from gateway.workers.parent import Parent  # noqa: PLC0415

        return _run(Parent(settings, role).run())
    from gateway.app import Gateway  # noqa: PLC0415
    from gateway.roles import ROLES  # noqa: PLC0415
    from gateway.workers.seat import Alone  # noqa: PLC0415

    return _run(Gateway(settings, ROLES[role], Alone()).run())


def work(settings: Settings, options: argparse.Namespace) -> int:
    """Be one of several workers, for the process that has started this one."""
    logs.configure(settings.log_level, settings.log_format, worker=options.number)
    from gateway.access.container import budget_of  # noqa: PLC0415
    from gateway.app import Gateway  # noqa: PLC0415
    from gateway.roles import ROLES  # noqa: PLC0415
    from gateway.workers.seat import take_seat  # noqa: PLC0415
    from gateway.workers.shares import share_of  # noqa: PLC0415

    share = share_of(settings, options.count, memory_bytes=budget_of(settings))
    ports = (options.http_port, options.grpc_port)

    async def run() -> None:
        async with take_seat(options.link, options.number, options.count, ports) as seat:
            await Gateway(share, ROLES[options.role], seat).run()

    return _run(run())


def _run(process: Coroutine[Any, Any, None]) -> int:
    # grpcio reads these when it is loaded. It shall not tell of each child that is started, nor
    # try to survive a fork: children are started by exec.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import uvloop  # noqa: PLC0415

    from gateway.lifecycle import RunError, StartError  # noqa: PLC0415

    try:
        uvloop.run(process)
    except SettingsError as error:
        return _wrong_settings(error)
    except (StartError, RunError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return FAILED
    return FINE


def show_settings(settings: Settings) -> int:
    for spec, value, default in settings.describe():
        print(f"{spec.name}={value}")
        print(f"    {spec.meaning}")
        print(f"    takes {spec.kind.accepts}; default: {default or 'not set'}")
    return FINE


def show_versions(settings: Settings) -> int:
    from gateway.tempo.backends import find_binary  # noqa: PLC0415
    from gateway.tempo.version import BinaryError, read_version  # noqa: PLC0415

    print(f"gateway {__version__}")
    print(f"Python {platform.python_version()}")
    for package in ("grpcio", "protobuf", "aiohttp", "uvloop"):
        print(f"{package} {metadata.version(package)}")
    binary = find_binary(settings)
    if binary is None:
        print("Tempo not found: no TEMPO_BIN, no ./bin/tempo, none on the PATH")
        return FINE
    try:
        print(f"Tempo {read_version(binary)} ({binary})")
    except BinaryError as error:
        print(f"Tempo {error}")
    return FINE


def install_tempo(settings: Settings, version: str | None, directory: Path) -> int:
    from gateway.tempo.install import InstallError, install  # noqa: PLC0415

    try:
        install(
            (version or settings.tempo_version).removeprefix("v"),
            directory,
            base_url=settings.tempo_download_url,
            say=lambda line: print(line, flush=True),
        )
    except InstallError as error:
        print(f"install-tempo: {error}", file=sys.stderr)
        return FAILED
    return FINE


def replay_dead_letters(settings: Settings, directory: Path, to: str | None) -> int:
    from gateway.replay import replay  # noqa: PLC0415

    if not directory.is_dir():
        print(f"replay: {directory} is no directory", file=sys.stderr)
        return WRONG
    url = (to or f"http://127.0.0.1:{settings.port}").rstrip("/") + "/v1/traces"
    sent, failed = replay(
        directory,
        url,
        lambda fault: print(f"replay: {fault}", file=sys.stderr),
        settings.ingest_tokens,
    )
    print(f"{sent} sent to {url}, {failed} left in {directory}")
    return FAILED if failed else FINE
