"""From an ONNX file to a network, with the parser's errors in one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe_tensorrt.api import Builder, INetworkDefinition, OnnxParser, ParserError, Vendor
    from qpipe_tensorrt.journal import Journal, Logger

_SHOWN = 3


def parse(
    vendor: Vendor, builder: Builder, path: str, logger: Logger, journal: Journal
) -> tuple[INetworkDefinition, OnnxParser]:
    """The network, and the parser that owns its weights: keep both until the engine is built.

    Raises:
        BuildError: with node name, operator and TensorRT's reason.
    """
    network = builder.create_network(0)
    parser = vendor.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        from qpipe.errors import BuildError

        count = parser.num_errors
        lines = [_told(parser.get_error(index)) for index in range(min(count, _SHOWN))]
        more = f" (and {count - _SHOWN} more)" if count > _SHOWN else ""
        raise BuildError(
            "TensorRT cannot parse " + ("; ".join(lines) or journal.reason()) + more,
            hint="express it by other operators, or leave it out of the model and compute it beside the engine",
        )
    return network, parser


def _told(error: ParserError) -> str:
    return f"{_where(error)}: {error.code().name}, {_reason(error)}"


def _where(error: ParserError) -> str:
    if error.node_name():
        return f"node `{error.node_name()}` ({error.node_operator()})"
    if error.node_operator():  # it has no name: its number in the graph, or the subgraph, that holds it
        return f"node number {error.node()} ({error.node_operator()})"
    return "the file"


def _reason(error: ParserError) -> str:
    """The parser's words; where it only says `false`, what that means."""
    text = error.desc().strip()
    if text in ("", "false"):
        return "the operator, or these attributes of it, are not supported"
    lines = [line for line in text.splitlines() if "Cuda Runtime" not in line and not line.startswith("Invalid Node")]
    return " ".join((lines or text.splitlines())[0].split())
