"""A JUnit XML file, which CI servers show: a suite per pipeline, a test case per judged cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision
from qpipe.report.overview import decisive

_NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, e.g. colours of a terminal."""


def junit_xml(ended: Sequence[Ended]) -> str:
    """FAIL and INCONCLUSIVE are failures; what crashed, cannot be run here or has no result at all is an error."""
    root = Element("testsuites", name="qpipe")
    for one in ended:
        _suite(root, one)
    for node in (*root, root):
        cases = list(node.iter("testcase"))
        node.set("tests", str(len(cases)))
        for kind in ("failure", "error"):
            node.set(f"{kind}s", str(sum(case.find(kind) is not None for case in cases)))
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _suite(root: Element, one: Ended) -> None:
    name = str(one.file) if isinstance(one.end, Refusal) else one.end.pipeline
    suite = SubElement(root, "testsuite", name=_clean(name))
    if isinstance(one.end, Refusal):
        case = SubElement(suite, "testcase", classname=_clean(name), name="pipeline")
        _trouble(case, "error", f"exit code {one.end.code}", one.end.message, one.end.hint)
        return
    for cell in one.end.cells:
        if cell.decision is not None or cell.status != "ok":
            _case(suite, cell)


def _case(suite: Element, cell: CellResult) -> None:
    where = _clean(f"{cell.model}.{cell.target}")
    case = SubElement(suite, "testcase", classname=where, name=_clean(cell.recipe), time=f"{cell.seconds:.3f}")
    gates = "\n".join(f"{one.gate}: {one.decision}: {one.reason}" for one in cell.verdicts)
    if cell.status != "ok":
        _trouble(case, "error", cell.status, cell.reason, cell.hint or gates)
    elif cell.decision is not Decision.PASS:
        names = ", ".join(one.gate for one in decisive(cell))
        _trouble(case, "failure", str(cell.decision), names or "no required gate", gates)


def _trouble(case: Element, tag: str, kind: str, message: str, text: str) -> None:
    SubElement(case, tag, type=_clean(kind), message=_clean(message)).text = _clean(text)


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)
