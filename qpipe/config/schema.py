"""The JSON schema of a pipeline file, for editors and for `qpipe schema`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import TypeAdapter

from qpipe.config.text import GateText, PipelineText
from qpipe.plugins.gate import GateType

Schema = dict[str, object]


def pipeline_schema(gates: Iterable[GateType[object]] = ()) -> Schema:
    """JSON Schema 2020-12 of a pipeline file; with gate types, the parameters of the gates that bear their names."""
    schema: Schema = PipelineText.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    properties, definitions = schema["properties"], schema["$defs"]
    if isinstance(properties, dict) and isinstance(definitions, dict):
        properties["gates"]["properties"] = {gate.name: _gate(gate, definitions) for gate in gates}
    return schema


def _gate(gate: GateType[object], definitions: Schema) -> Schema:
    params = TypeAdapter(gate.params).json_schema(ref_template="#/$defs/{model}")
    definitions.update(params.pop("$defs", {}))
    common = GateText.model_json_schema()["properties"]
    own = {**common, **params.get("properties", {})}
    shape: Schema = {"type": "object", "description": gate.summary, "properties": own, "additionalProperties": False}
    if params.get("required"):
        shape["required"] = params["required"]
    return {"anyOf": [shape, {"type": "null"}]}
