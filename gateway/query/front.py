"""What ``GET /`` says."""

from __future__ import annotations

FRONT = """\
OTLP gateway {version} in front of Grafana Tempo

POST /v1/traces          OTLP/HTTP, application/x-protobuf or application/json
gRPC port {grpc_port}            OTLP/gRPC
GET  /api/...            Tempo's query API (Grafana's Tempo datasource takes this URL)
GET  /ready /live        is it up
GET  /metrics            Prometheus
GET  /gateway/status     what it is doing, JSON
"""

RELAY_FRONT = """\
OTLP relay {version}, which delivers to another gateway or Tempo

gRPC port {grpc_port}            OTLP/gRPC
POST /v1/traces          OTLP/HTTP, application/x-protobuf or application/json
GET  /ready /live        is it up
GET  /metrics            Prometheus
GET  /gateway/status     what it is doing, JSON
Queries are answered by the gateway, not here.
"""
