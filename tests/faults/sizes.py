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
    hostile_rounds: int
    """How often each of the large requests comes."""
    timeout_s: float
    """Of one test."""


SHORT = Size(
    gateway_kills=3,
    backend_kills=2,
    stops=2,
    outage_s=5,
    overload_s=5,
    damaged_starts=1,
    hostile_rounds=6,
    timeout_s=90,
)
LONG = Size(
    gateway_kills=50,
    backend_kills=10,
    stops=10,
    outage_s=120,
    overload_s=60,
    damaged_starts=10,
    hostile_rounds=50,
    timeout_s=1200,
)

SIZE = LONG if os.environ.get("SOAK") else SHORT

MARKS = [pytest.mark.slow, pytest.mark.timeout(SIZE.timeout_s)]
"""Of every test in this room."""
