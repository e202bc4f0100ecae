"""How long to wait: before the next attempt of a delivery, and before a refused client's retry.

Pure: chance and measurements are arguments.
"""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """Exponential backoff with full jitter: each delay is anywhere from 0 to a doubling ceiling,
    so that senders that failed together do not come back together.
    """

    first_s: float = 0.1
    most_s: float = 5.0

    def delay_s(self, attempt: int, chance: float, asked_s: float | None = None) -> float:
        """Delay before attempt ``attempt`` + 1 (counted from 1); ``chance`` is in [0, 1).

        What the backend asked for is the least delay; jitter is added on top, never taken off. A
        backend that asks for none gets the backoff all the same.
        """
        ceiling = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, 30))
        least = max(0.0, asked_s or 0.0)
        return least + max(ceiling, 0.5 * min(self.most_s, least)) * chance


LEAST_HINT_S, MOST_HINT_S = 1.0, 60.0


def hint_s(queued_bytes: float, bytes_per_s: float, chance: float) -> float:
    """When a refused client shall come back: about when a tenth of the queue will be gone, spread
    over as long again so that the herd does not return at once.

    Grows with the queue and with the slowness of delivery; a queue that does not move at all gives
    the most. Seconds, between LEAST_HINT_S and MOST_HINT_S.
    """
    if bytes_per_s <= 0:
        wait = MOST_HINT_S / 2
    else:
        wait = min(MOST_HINT_S / 2, max(LEAST_HINT_S, 0.1 * queued_bytes / bytes_per_s))
    return wait * (1 + chance)


class Rate:
    """Bytes per second of what was delivered, weighted to the last half minute."""

    __slots__ = ("_since", "_value")

    HALF_LIFE_S = 10.0

    def __init__(self, now: float) -> None:
        self._since = now
        self._value = 0.0

    def add(self, amount: float, now: float) -> None:
        self._decay(now)
        self._value += amount * 0.6931 / self.HALF_LIFE_S  # ln 2: the decaying sum's own rate

    def per_s(self, now: float) -> float:
        self._decay(now)
        return self._value

    def _decay(self, now: float) -> None:
        self._value *= 0.5 ** (max(0.0, now - self._since) / self.HALF_LIFE_S)
        self._since = now
