"""Sizes of the fault tests: short for ``make test``, long for ``make soak``."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest


class Size(NamedTuple):
    """How often and how long."""

    gateway_kills: int
    tempo_kills: int
    stops: int
    outage_s: float
    overload_s: float


SHORT = Size(gateway_kills=5, tempo_kills=2, stops=2, outage_s=8, overload_s=6)
LONG = Size(gateway_kills=50, tempo_kills=10, stops=10, outage_s=120, overload_s=60)


@pytest.fixture(scope="session")
def size() -> Size:
    return LONG if os.environ.get("SOAK") else SHORT


@pytest.fixture
def report(record_property):
    """Figures of a run, for the summary table of ``make soak``."""

    def say(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)
        print("  ".join(f"{name}={value}" for name, value in figures.items()))

    return say
