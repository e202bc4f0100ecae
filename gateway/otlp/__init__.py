"""Knowledge of the format: bytes and values in, bytes and values out.

Promises to be pure: no sockets, no clocks, no asyncio. The only importer of ``proto_stubs``.
"""
