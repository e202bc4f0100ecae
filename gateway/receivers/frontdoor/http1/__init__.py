"""HTTP/1.1 for the one request that is hot, ``POST /v1/traces``.

Whatever else comes, unusual forms of that request too, goes on to the general server on the same
connection; so this stays small, and where the two overlap they answer alike.
"""
