"""An OTLP gateway in front of Grafana Tempo.

The words, each used for one thing:

- span, resource, scope, trace, attribute: as in OpenTelemetry.
- request: one ``ExportTraceServiceRequest`` from a client. It is *accepted*, in whole or in part
  (bad spans are *rejected* and named), or it is *refused* as a whole.
- payload: a serialized ``ExportTraceServiceRequest``; payloads that are concatenated merge.
- envelope: a payload with its tenant and span count; what travels inside the gateway.
- spool: where envelopes are kept from acceptance until the backend surely has them.
- batch: envelopes of one tenant joined into one payload for one delivery.
- backend: what stores the traces: Tempo, or the embedded one for development.
- hold: the time between the backend's OK and its disk; the spool keeps the envelope meanwhile.
- generation: counts the lives of the backend; spans held from an earlier one are sent again.
"""

__version__ = "0.1.0"
