"""HTTP/2 as a server needs it: no push, no priorities, no sockets and no clock.

Promises that whatever a peer sends costs bounded memory, and time in proportion to what it sent.
"""
