"""Makes one read-out of those of several processes. Pure.

Families of metrics travel between processes as plain lists, which JSON can carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

Plain = list[Any]
"""``[name, help, type, [[sample name, labels, value], ...]]``."""

_BACKEND = "gateway_backend_"
_COUNTED_HERE = frozenset({"gateway_backend_scrape_failures"})
_FACTS = frozenset({"python_info"})
_LOWEST = frozenset({"gateway_process_start_time_seconds"})


def to_plain(families: Iterable[Metric]) -> list[Plain]:
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[sample.name, sample.labels, sample.value] for sample in family.samples],
        ]
        for family in families
    ]


def from_plain(families: Iterable[Plain]) -> list[Metric]:
    made = []
    for name, documentation, kind, samples in families:
        metric = Metric(name, documentation, kind)
        for sample, labels, value in samples:
            metric.add_sample(sample, labels, value)
        made.append(metric)
    return made


def merge_families(parts: Iterable[Iterable[Plain]]) -> list[Plain]:
    """Sums; but what all of them say of the one backend is said once, by who knows most of it.

    Buckets of histograms are cumulative and have the same bounds everywhere, so sums are right.
    """
    families: dict[str, Plain] = {}
    series: dict[str, dict[tuple[Any, ...], Plain]] = {}
    for part in parts:
        for name, documentation, kind, samples in part:
            family = families.setdefault(name, [name, documentation, kind, []])
            known = series.setdefault(name, {})
            for sample, labels, value in samples:
                key = (sample, *sorted(labels.items()))
                if key in known:
                    known[key][2] = _joined(name, known[key][2], value)
                else:
                    known[key] = [sample, labels, value]
                    family[3].append(known[key])
    return list(families.values())


def _joined(name: str, one: float, other: float) -> float:
    if name in _LOWEST:
        return min(one, other)
    if name in _FACTS or (name.startswith(_BACKEND) and name not in _COUNTED_HERE):
        return max(one, other)
    return one + other


_SAID_ONCE = frozenset({"backend", "version", "mode", "note"})
_HIGHEST = frozenset({"uptime_s", "wanted"})
_ALL = frozenset({"accepting"})


def merge_status(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers are summed, of words the first that somebody has counts, and what all say of the one
    backend is as the first part says it. At least one part.
    """
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: _merged(key, [part[key] for part in parts if key in part]) for key in keys}


def _merged(key: str, values: Sequence[Any]) -> Any:
    if key in _SAID_ONCE:
        return values[0]
    if key in _ALL:
        return all(values)
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, bool) for value in known):
        return any(known)
    if all(isinstance(value, Mapping) for value in known):
        return merge_status(known)
    if all(isinstance(value, int | float) for value in known):
        return max(known) if key in _HIGHEST else sum(known)
    return known[0]
