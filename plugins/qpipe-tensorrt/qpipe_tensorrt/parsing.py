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
        RefusedError: TensorRT has nothing for a node, or the graph is none; with node name, operator and its reason.
        BuildError: the parser failed for another reason.
    """
    network = builder.create_network(0)
    parser = vendor.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        from qpipe.errors import BuildError, RefusedError

        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        lines = [_told(error) for error in errors[:_SHOWN]]
        more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
        kind = RefusedError if errors and all(map(about_the_graph, errors)) else BuildError
        raise kind(
            "TensorRT cannot parse " + ("; ".join(lines) or journal.reason()) + more,
            hint="express it by other operators, or leave it out of the model and compute it beside the engine",
        )
    return network, parser


def about_the_graph(error: ParserError) -> bool:
    """Whether the same file meets this error each time: by its code, and not for memory or a driver that is missing.

    Source: NvOnnxParser.h, `ErrorCode`.
    """
    text = error.desc()
    of_machine = "memory" in text.lower() or "bad_alloc" in text or ("Cuda Runtime" in text and len(_own(text)) == 0)
    return error.code().name.startswith(("UNSUPPORTED_", "INVALID_")) and not of_machine


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
    return " ".join((_own(text) or text.splitlines())[0].split())


def _own(text: str) -> list[str]:
    """What is left of a description without the driver's complaints."""
    return [line for line in text.splitlines() if "Cuda Runtime" not in line and not line.startswith("Invalid Node")]
