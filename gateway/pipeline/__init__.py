"""From acceptance to the backend: spool, batcher, delivery.

Promises at-least-once delivery of what it took, inside its bounds of memory and disk. Never parses
a payload on the way.
"""
