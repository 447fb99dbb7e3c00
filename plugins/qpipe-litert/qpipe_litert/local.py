"""An engine on this machine, which LiteRT's own benchmark program can look at too."""

from __future__ import annotations

from pathlib import Path

from qpipe.errors import EngineError
from qpipe.plugins.options import read_options
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe_litert.benchmark import cross_check
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.session import BorderSession, LocalEngine


class LocalSession(BorderSession):
    """A session in this process."""

    def __init__(
        self, engine: LocalEngine, layout: Layout, signature: Signature, *, file: Path, target: Target
    ) -> None:
        super().__init__(engine, layout, signature, kind="measured")
        self._file = file
        self._target = target

    def cross_check(self) -> str:
        """Median of `litert-benchmark` on one row with the target's threads, and whether all of it is delegated."""
        if read_options(Options, self._target).kernels != "xnnpack":
            return "litert-benchmark was not run: it times XNNPACK, this target has the reference kernels"
        try:
            found = cross_check(self._file, threads=self._target.threads)
        except EngineError as error:
            return f"litert-benchmark was not run: {error.message}"
        share = "fully" if found.fully_delegated else "partly"
        return f"litert-benchmark: {found.median_ms:.4g} ms (median of {found.runs} runs), {share} delegated"
