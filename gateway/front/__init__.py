"""The front: one process per host that decides about calls and serves HTTP."""
