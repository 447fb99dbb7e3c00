"""qpipe: from a trained model to a promoted engine on every piece of hardware, with evidence you can sign."""

__version__ = "0.1.0"
