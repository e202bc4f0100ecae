"""The way out: Tempo's HTTP API through an allow-list, and one exposition of all metrics.

Never passes on a path that is not on the list.
"""
