"""The content-addressed store: immutable folders named by digest, and keys that name them."""

from qpipe.store.store import Store

__all__ = ["Store"]
