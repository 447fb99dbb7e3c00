"""The version of the core, for keys, ledgers and manifests."""

__version__ = "0.1.0"
