"""The OpenAPI description of a server: its routes, and a record's fields with types and examples from the bundle."""

from __future__ import annotations

import base64
import datetime
import decimal
from typing import Any

import pyarrow as pa

from penstock.bundle.bundle import Bundle
from penstock.recipe.schema import Serve
from penstock.serve.protocol import is_bytes

_MOST_EXAMPLE_BYTES = 4_096


def openapi_of(bundle: Bundle, options: Serve) -> dict[str, Any]:
    """OpenAPI 3.1, whole."""
    predictor = bundle.predictor()
    example = _example(bundle)
    record: dict[str, Any] = {
        "type": "object", "required": list(predictor.columns), "description": "One row. Every field is required; null means missing. Unknown fields are ignored.",
        "properties": {name: {**field_schema(kind), "description": f"Arrow type {kind} in training"} for name, kind in predictor.columns.items()},
    }
    for name in bundle.keep:
        record["properties"].setdefault(name, {"description": "Carried along into the prediction, if given."})
    prediction = {"type": "object", "properties": {field.name: field_schema(field.type) for field in predictor.answer_schema}}
    asked = {"type": "object", "required": ["records"], "properties": {"records": {"type": "array", "maxItems": options.max_rows, "items": {"$ref": "#/components/schemas/Record"}}}}
    answered = {
        "type": "object", "required": ["predictions", "model", "request_id"],
        "properties": {"predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}, "model": {"type": "string"}, "request_id": {"type": "string"}},
    }
    error = {
        "type": "object", "required": ["error", "request_id"],
        "properties": {
            "error": {"type": "string"}, "request_id": {"type": "string"},
            "problems": {"type": "array", "items": {"type": "object", "properties": {"row": {"type": ["integer", "null"]}, "field": {"type": ["string", "null"]}, "reason": {"type": "string"}}}},
        },
    }
    refusals = {
        "400": "not JSON, or not of the protocol", "413": "too large", "422": "rows that cannot be answered, each with row, field and reason",
        "503": "too slow, too busy, or stopping",
    }
    if options.token_env:
        refusals["401"] = "no token, or a wrong one"
    model = bundle.name or bundle.reference
    post = {
        "summary": "Answer rows", "operationId": "predict",
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": [asked, {"$ref": "#/components/schemas/Record"}]}, "example": {"records": [example] if example else []}}}},
        "responses": {"200": _content("The answers, one a record, in order", answered), **{code: _content(text, {"$ref": "#/components/schemas/Error"}) for code, text in refusals.items()}},
    }
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"Penstock: {model}", "version": bundle.reference, "description": f"Answers of {bundle.reference} for {', '.join(predictor.answer_schema.names)}."},
        "paths": {
            "/predict": {"post": post},
            f"/v2/models/{model}/infer": {"post": _tensors()},
            **{path: {"get": {"summary": text, "responses": {"200": {"description": "OK"}}}} for path, text in {
                "/": "What is served", "/metrics": "Meters for Prometheus", "/v2": "Server metadata (Open Inference Protocol)", "/v2/health/live": "Whether the server lives",
                "/v2/health/ready": "Whether it can answer", f"/v2/models/{model}": "Model metadata: inputs and outputs as tensors", f"/v2/models/{model}/ready": "Whether the model can answer",
            }.items()},
        },
        "components": {"schemas": {"Record": record, "Prediction": prediction, "Error": error}},
    }
    if options.token_env:
        whole["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"bearer": []}]
    return whole


def _content(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _tensors() -> dict[str, Any]:
    tensor = {
        "type": "object", "required": ["name", "shape", "datatype"],
        "properties": {"name": {"type": "string"}, "shape": {"type": "array", "items": {"type": "integer"}}, "datatype": {"type": "string"}, "data": {"type": "array"}, "parameters": {"type": "object"}},
    }
    return {
        "summary": "Answer tensors (Open Inference Protocol v2, with the binary extension)", "operationId": "infer",
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object", "required": ["inputs"], "properties": {
            "id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}, "outputs": {"type": "array", "items": {"type": "object"}}}}}}},
        "responses": {"200": {"description": "The answers as tensors"}},
    }


def field_schema(kind: pa.DataType) -> dict[str, Any]:
    """A JSON Schema of the values of an Arrow type, null among them."""
    if pa.types.is_boolean(kind):
        return {"type": ["boolean", "null"]}
    if pa.types.is_integer(kind):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"type": ["number", "null"]}
    if pa.types.is_temporal(kind):
        return {"type": ["string", "null"], "format": "date" if pa.types.is_date(kind) else "date-time"}
    if pa.types.is_struct(kind):
        return {"type": ["object", "null"], "properties": {field.name: field_schema(field.type) for field in kind}}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return {"type": ["array", "null"], "items": field_schema(kind.value_type)}
    if is_bytes(kind):
        return {"type": ["string", "null"], "contentEncoding": "base64"}
    return {"type": ["string", "null"]}


def _example(bundle: Bundle) -> dict[str, Any] | None:
    """A golden row, as JSON has it."""
    rows, _ = bundle.golden()
    return {name: plain(value) for name, value in rows.slice(0, 1).to_pylist()[0].items()} if rows.num_rows else None


def plain(value: Any) -> Any:
    """A value of an Arrow column as JSON has it."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if len(value) <= _MOST_EXAMPLE_BYTES else None  # a page is no place for a photo
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value
