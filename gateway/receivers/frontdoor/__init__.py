"""The front door: one listener for every protocol, on every port.

The first bytes of a connection say what it speaks. OTLP/gRPC and the hot path of OTLP/HTTP are
served here, by ``Ingest``; everything else is handed to the general HTTP server. The protocols are
pure (bytes in, calls of a ``Wire`` out); only ``connection`` and ``door`` know sockets and clocks.
"""
