"""The gateway's own voice: metrics, logs, status."""
