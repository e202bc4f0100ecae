"""The gateway beside its peers, on the same machine in the same run.

    python -m benchmarks.peers [--quick] [--runs 5] [--seconds 1] [--only PATTERN]
        [--env NAME=VALUE] [--variant NAME=VALUE] [--json FILE] [--svg FILE] [--page FILE]

Every system under test has one core, the load and the sink have another. All systems run the whole
time; each case is measured round by round, each system in turn, so that a busy moment of the
machine hits all of them. What counts are ratios within one run.

Peers: Rotel (``ROTEL_BIN``, else it is installed from PyPI into a directory that is thrown away),
the OpenTelemetry Collector (``OTELCOL_BIN``), and Tempo itself (``TEMPO_BIN``). Needs Linux, two
cores, and ``h2load`` (Debian: nghttp2-client).
"""
