"""Fixtures of the fault tests, and the table of figures at their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.gateways import Gateways
from tests.kit.gateway import eventually


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], Gateways]]:
    """Makes ``Gateways`` with these settings; everything they start is killed at the end."""
    made: list[Gateways] = []

    def make(env: Mapping[str, str], data_dir: Path = tmp_path / "data") -> Gateways:
        made.append(Gateways(data_dir, env))
        return made[-1]

    yield make
    for each in made:
        each.kill_all()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """For what a test enters in its midst."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Figures of a test for the table."""

    def say(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)

    return say


@pytest.fixture(autouse=True)
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """Every child of the test works in its directory, and is gone at its end."""
    yield
    eventually(lambda: not _processes_of(tmp_path), timeout_s=10)


def _processes_of(directory: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(directory) in command:
            found.append(command)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that the tests reported, one line each."""
    rows = [
        (report.nodeid.removeprefix("tests/faults/"), dict(report.user_properties))
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call" and "tests/faults/" in report.nodeid and report.user_properties
    ]
    if not rows:
        return
    terminalreporter.section("what the faults did")
    for name, figures in rows:
        shown = "  ".join(f"{key}={value}" for key, value in figures.items())
        terminalreporter.write_line(f"{name}\n    {shown}")
