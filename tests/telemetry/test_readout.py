"""What one process has to say for ``/metrics``."""

from __future__ import annotations

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readout import ReadOut


async def test_the_table_and_the_process_are_told_as_of_now():
    metrics = Metrics()
    read_out = ReadOut(metrics)
    metrics.accepted_spans.series().value = 3
    samples = {
        sample.name: sample.value
        for family in await read_out.families()
        for sample in family.samples
        if not sample.labels
    }
    assert samples["gateway_accepted_spans_total"] == 3
    assert samples["gateway_process_resident_memory_bytes"] > 2**20
