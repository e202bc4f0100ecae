"""How often and how long: short for ``make test``, long for ``make soak``."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest


class Size(NamedTuple):
    gateway_kills: int
    backend_kills: int
    stops: int
    outage_s: float
    overload_s: float
    damaged_starts: int
    large_requests: int
    """How often each comes alone, and how often with others."""
    memory_mib: tuple[int, ...]
    """Budgets that large requests are tried with."""
    slow_spans: int
    """To be acknowledged beside slow connections."""
    drain_s: float
    """For the backend to take what has piled up meanwhile."""
    timeout_s: float
    """Of one test."""


SHORT = Size(
    gateway_kills=2,
    backend_kills=1,
    stops=1,
    outage_s=3,
    overload_s=2,
    damaged_starts=1,
    large_requests=1,
    memory_mib=(64,),
    slow_spans=4_000,
    drain_s=60,
    timeout_s=90,
)
LONG = Size(
    gateway_kills=50,
    backend_kills=10,
    stops=10,
    outage_s=120,
    overload_s=60,
    damaged_starts=10,
    large_requests=10,
    memory_mib=(64, 128),
    slow_spans=100_000,
    drain_s=300,
    timeout_s=1200,
)

SOAK = bool(os.environ.get("SOAK"))
SIZE = LONG if SOAK else SHORT

MARKS = [pytest.mark.slow, pytest.mark.timeout(SIZE.timeout_s)]
"""Of every test in this room."""
