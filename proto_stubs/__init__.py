"""Our own protobuf definitions and what is generated from them.

Everything lives in a descriptor pool and in packages of its own, so that it never clashes with
pip's ``opentelemetry-proto`` or ``googleapis-common-protos`` in the same process.
``make stubs`` regenerates, ``make stubs-check`` fails when a committed file is stale.
"""
