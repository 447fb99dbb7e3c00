"""For authors of plugins: a backend that lies on demand, and the suite that finds out.

`from qpipe.testing.contract import BackendContract` (needs pytest), `from qpipe.testing.fake import FakeBackend`.
"""
