"""More than one process for one gateway, so that it can use more than one core.

The parent (``parent``) takes no spans: it reserves the ports, runs the backend, keeps the workers
alive (``crew``), and lets whichever is asked speak for all of them. A worker is a gateway of its
own but for its backend (``backend``), of whose life it learns from the parent over a ``link``.
"""
