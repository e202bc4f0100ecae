"""gRPC over HTTP/2: what its headers and messages mean, and the calls that are served.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
