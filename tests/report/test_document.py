import json

import pytest
from pydantic import TypeAdapter

from qpipe.report import result_schema
from qpipe.report.document import run_document, run_json
from qpipe.report.shapes import RunShape

PROMISED = {
    "run": {"run_id", "mlflow_run_id", "pipeline", "exit_code", "warnings", "cells", "promoted"},
    "cell": {"key", "model", "recipe", "target", "cached", "status", "reason", "hint", "verdict", "gates", "engine"}
    | {"metrics", "profile", "placement", "facts", "attribution", "lint"},
    "gate": {"verdict", "observed", "low", "high", "limit", "n", "alpha", "kind", "reason", "advice", "slices"},
    "promoted": {"model", "version", "alias", "engine"},
}


def test_the_document_has_the_promised_keys(result):
    document = json.loads(run_json(result))
    cell = document["cells"][1]

    assert document.keys() >= PROMISED["run"]
    assert cell.keys() >= PROMISED["cell"]
    assert cell["gates"]["quality"].keys() >= PROMISED["gate"]
    assert document["promoted"][0].keys() >= PROMISED["promoted"]
    assert cell["engine"].keys() == {"digest", "path", "files", "size_bytes", "notes"}
    assert cell["metrics"].keys() == {"reference", "quantized", "engine"}
    assert cell["profile"].keys() == {"kind", "batch", "peak_rss_bytes"}
    assert cell["profile"]["batch"]["1"].keys() == {"latency_ms", "baseline_ms", "ratio"}
    assert cell["placement"].keys() == {"integer", "float", "elsewhere", "notes"}
    assert cell["facts"]["arena_bytes"] == {"value": 1024, "unit": "B", "kind": "estimated"}


def test_its_values_are_those_of_the_records(result):
    document = json.loads(run_json(result))
    reference, int8, crashed = document["cells"]

    assert (reference["verdict"], int8["verdict"], crashed["verdict"]) == (None, "FAIL", None)
    assert int8["metrics"]["quantized"] == {"accuracy": 0.974}
    assert int8["metrics"]["reference"] == {"accuracy": 0.975}
    assert int8["profile"]["batch"]["8"]["latency_ms"]["p50"] == 4
    assert int8["profile"]["peak_rss_bytes"] == 101_000_000
    assert int8["gates"]["slices"]["slices"][1]["verdict"] == "FAIL"
    assert crashed["engine"] is None
    assert crashed["reason"] == "signal 11 <SEGV>"


def test_what_is_no_number_is_null(result):
    cell = json.loads(run_json(result))["cells"][1]
    assert cell["metrics"]["engine"]["cosine"] is None
    assert cell["gates"]["slices"]["high"] is None


def test_the_document_is_of_its_schema(result, unmeasured):
    for one in (result, unmeasured):
        TypeAdapter(RunShape).validate_json(run_json(one))
    with pytest.raises(ValueError, match="extra"):
        TypeAdapter(RunShape).validate_python({**run_document(result), "surprise": 1})


def test_the_schema_is_published_and_covers_errors():
    schema = result_schema()
    json.dumps(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    names = schema["$defs"]
    assert set(names["CellShape"]["required"]) == PROMISED["cell"]
    assert set(names["ErrorShape"]["required"]) == {"message", "hint", "code"}
