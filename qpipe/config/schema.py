"""The JSON schema of a pipeline file, for editors and for `qpipe schema`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import TypeAdapter

from qpipe.config.text import GateText, PipelineText
from qpipe.plugins.gate import GateType
from qpipe.plugins.stage import StageType

Schema = dict[str, object]


def pipeline_schema(gates: Iterable[GateType[object]] = (), stages: Iterable[StageType[object]] = ()) -> Schema:
    """JSON Schema 2020-12 of a pipeline file; with gate types and stages, their parameters are described too."""
    schema = PipelineText.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["base"]}]  # the base has what such a file leaves out
    definitions: Schema = schema["$defs"]
    common = GateText.model_json_schema()["properties"]
    schema["properties"]["gates"]["properties"] = {
        gate.name: _params(gate.params, gate.summary, common, definitions) for gate in gates
    }
    known = {stage.name: _params(stage.params, stage.summary, {}, definitions) for stage in stages}
    if known:
        one = {
            "type": "object",
            "properties": known,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        definitions["Stage"] = {"anyOf": [{"enum": [*known]}, one]}
        _items_of_stages(definitions)["items"] = {"$ref": "#/$defs/Stage"}
    return schema


def _params(kind: type[object], summary: str, common: Mapping[str, object], definitions: Schema) -> Schema:
    params = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
    definitions.update(params.pop("$defs", {}))
    shape: Schema = {
        "type": "object",
        "description": summary,
        "properties": {**common, **params.get("properties", {})},
        "additionalProperties": False,
    }
    if params.get("required"):
        return {**shape, "required": params["required"]}
    return {"anyOf": [shape, {"type": "null"}]}


def _items_of_stages(definitions: Schema) -> Schema:
    """The part of the schema of a recipe that describes its list of stages."""
    recipe = definitions["RecipeText"]
    if isinstance(recipe, dict):
        for option in recipe["properties"]["stages"]["anyOf"]:
            if option.get("type") == "array":
                found: Schema = option
                return found
    raise AssertionError("RecipeText.stages is no list any more")
