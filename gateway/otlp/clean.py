"""Proof that the spans of a request keep the rules, without an object for each of them.

A clean request is the rule, so the proof is one-sided: where it fails, the spans are looked at one
by one, which costs several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import le

from gateway.otlp.rules import ZERO_SPAN_ID, ZERO_TRACE_ID, fault_of
from proto_stubs.view_pb2 import ShapeSpan

_TRACE_ID = b"\x0a\x10"
_SPAN_ID = b"\x12\x08"
_PARENT_SIZES = frozenset((0, 8))
_HEAD_BYTES = 28
"""A span as every SDK writes it begins with both ids, each behind its tag and length."""


def are_clean(spans: Sequence[bytes], columns: ShapeSpan, latest_ns: int) -> bool:
    """True only if no span breaks a rule; links are not looked at. ``columns`` hold the fields of
    all ``spans``, which are serialized; there is at least one.

    The ids of each span are proven. Its times are, unless some span repeats a time that another
    one lacks, which no encoder does: a forger gets times past the rules that harm only his own
    trace.
    """
    count = len(spans)
    trace_ids, span_ids = columns.trace_id, columns.span_id
    starts, ends = columns.start_time_unix_nano[:], columns.end_time_unix_nano[:]
    parents = columns.parent_span_id[:]
    if not len(trace_ids) == len(span_ids) == len(starts) == len(ends) == count:
        return False
    if count == 1:  # one of each, so there is nothing to prove about their order
        parent = parents[-1] if parents else b""
        return (
            fault_of(trace_ids[0], span_ids[0], parent, starts[0], ends[0], (), latest_ns) is None
        )
    return (
        _have_good_ids(spans)
        and _PARENT_SIZES.issuperset(map(len, parents))
        and min(starts) > 0
        and max(starts) <= latest_ns
        and all(map(le, starts, ends))
    )


def _have_good_ids(spans: Sequence[bytes]) -> bool:
    """Whether each span begins with good ids. A zero id is looked for anywhere in the heads: what
    looks like one by chance fails the proof only.
    """
    count = len(spans)
    heads = b"".join([span[:_HEAD_BYTES] for span in spans])
    return (
        heads[0::_HEAD_BYTES] == _TRACE_ID[:1] * count
        and heads[1::_HEAD_BYTES] == _TRACE_ID[1:] * count
        and heads[18::_HEAD_BYTES] == _SPAN_ID[:1] * count
        and heads[19::_HEAD_BYTES] == _SPAN_ID[1:] * count
        and _TRACE_ID + ZERO_TRACE_ID not in heads
        and _SPAN_ID + ZERO_SPAN_ID not in heads
    )
