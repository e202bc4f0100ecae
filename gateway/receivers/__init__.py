"""Takes requests in: thin transport adapters over one sans-I/O ``ingest``.

Promises that a client is answered OK only after the pipeline has taken its spans.
"""
