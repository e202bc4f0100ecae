"""The development backend: a process that speaks Tempo's ports over SQLite.

Known to nobody else: the gateway starts it and talks to it exactly as it does to Tempo.
"""
