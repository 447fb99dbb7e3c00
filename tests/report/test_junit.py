"""What a CI server reads."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from qpipe.records.fleet import Ended, Refusal
from qpipe.records.verdict import Decision
from qpipe.report.junit import junit_xml


def test_each_judged_cell_is_a_case_and_each_pipeline_a_suite(result):
    none, failed, crashed = result.cells
    good = replace(failed, target="<gpu>", decision=Decision.PASS, verdicts=failed.verdicts[:1])
    run = replace(result, cells=(none, failed, replace(crashed, reason="signal \x1b[31m11"), good))
    refusal = Refusal(message="b.yaml:1: unknown key 'x'", hint="known keys", code=2)
    text = junit_xml([Ended(file=Path("a.yaml"), end=run), Ended(file=Path("b.yaml"), end=refusal)])

    root = ElementTree.fromstring(text)
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["4", "1", "2"]
    assert [(suite.get("name"), suite.get("tests")) for suite in root] == [("digits <demo>", "3"), ("b.yaml", "1")]
    cases = {(case.get("classname"), case.get("name")): list(case) for case in root.iter("testcase")}
    (failure,) = cases["digits.cpu-local", "int8"]
    assert (failure.tag, failure.get("type"), failure.get("message")) == ("failure", "FAIL", "slices")
    assert "quality: PASS: lower bound" in failure.text
    (error,) = cases["digits.cpu-local", "fp16"]
    assert (error.tag, error.get("type"), error.get("message")) == ("error", "crashed", "signal [31m11")
    assert cases["digits.<gpu>", "int8"] == []
    assert cases["b.yaml", "pipeline"][0].get("message") == "b.yaml:1: unknown key 'x'"
