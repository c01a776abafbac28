"""The OpenAPI description of a server: its routes, and a record's fields with types and examples from the
bundle.

It says what the server does, no more and no less, which schemathesis holds it to: a body that the schemas
refuse is refused, every status that can come is listed, and every answer is of its schema. What a schema
cannot say (that a text is no date, or a number beyond what the model was trained on) is a 422 with row, field
and reason.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.bundle.bundle import Bundle
from penstock.bundle.record_shape import RecordShape
from penstock.recipe.names import kept_names
from penstock.recipe.schema import Serve
from penstock.serve.datatypes import DATATYPES, LONGEST_AXIS, is_bytes
from penstock.serve.natural import example_of, natural_columns

_SCALAR = ["string", "number", "boolean", "null"]
_TEXTS = {
    "400": "not JSON, or not of the protocol",
    "401": "no token, or a wrong one",
    "408": "the body did not come in time",
    "411": "neither Content-Length nor Transfer-Encoding was given",
    "413": "too large: the body, its rows, or what its values take in memory",
    "415": "a compressed body, or a type that is not read",
    "422": "rows that cannot be answered, each with row, field and reason",
    "503": "too slow, too busy, or stopping; ask again after Retry-After seconds",
}
_BODY_ERRORS = ("400", "408", "411", "413", "415", "422", "503")

Json = dict[str, Any]


def openapi_of(bundle: Bundle, options: Serve) -> Json:
    """Return the server's whole OpenAPI 3.1 description."""
    guarded = options.token_env is not None
    model = bundle.name or bundle.reference
    # No rows are answered for this: the predictor knows its schema.
    outputs = ", ".join(bundle.predictor().answer_schema.names)
    whole: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Penstock: {model}",
            "version": bundle.reference,
            "description": f"Answers of {bundle.reference} for {outputs}.",
        },
        "paths": {
            **_predict(bundle, options),
            **_models(model, bundle.id, guarded),
            **_pages(guarded),
        },
        "components": {"schemas": _schemas(bundle, options)},
    }
    if guarded:
        whole["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"}
        }
        whole["security"] = [{"bearer": []}]
    return whole


def _predict(bundle: Bundle, options: Serve) -> Json:
    example = example_of(bundle)
    records = {"type": "array", "maxItems": options.max_rows, "items": _ref("Row")}
    wrapped: Json = {
        "type": "object",
        "required": ["records"],
        "properties": {"records": records},
    }
    as_instances: Json = {
        "type": "object",
        "required": ["instances"],
        "description": "The same, in the word of TensorFlow Serving.",
        "properties": {"instances": records},
    }
    body: Json = {
        # The forms that the decoder takes: wrapped, a bare list, one bare record.
        "schema": {"anyOf": [wrapped, records, _ref("Row"), as_instances]},
        "example": {"records": [example] if example else []},
    }
    post = {
        "summary": "Answer rows",
        "operationId": "predict",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": _content("The answers, one a record, in order", _ref("Answer")),
            **_errors(*_BODY_ERRORS, guarded=options.token_env is not None),
        },
    }
    return {"/predict": {"post": post}}


def _models(model: str, version: str, guarded: bool) -> Json:
    """Describe the routes of the Open Inference Protocol about the model."""
    paths: Json = {}
    for place, suffix in (
        (f"/v2/models/{model}", ""),
        (f"/v2/models/{model}/versions/{version}", "OfVersion"),
    ):
        paths[f"{place}/infer"] = {"post": _infer(f"infer{suffix}", guarded)}
        paths[place] = _read(
            "Model metadata: inputs and outputs as tensors",
            _ref("ModelMetadata"),
            guarded=guarded,
        )
        ready: Json = {
            "type": "object",
            "required": ["name", "ready"],
            "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
        }
        paths[f"{place}/ready"] = _read(
            "Whether the model can answer", ready, guarded=guarded, unready=True
        )
    return paths


def _infer(operation: str, guarded: bool) -> Json:
    answer = _content(
        "The answers as tensors; with bytes after the JSON where they were asked for",
        _ref("InferenceAnswer"),
    )
    # The binary extension puts bytes behind the JSON.
    answer["content"]["application/octet-stream"] = {
        "schema": {"type": "string", "format": "binary"}
    }
    return {
        "summary": "Answer tensors (Open Inference Protocol v2, with the binary extension)",
        "operationId": operation,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("InferenceRequest")}},
        },
        "responses": {"200": answer, **_errors(*_BODY_ERRORS, guarded=guarded)},
    }


def _pages(guarded: bool) -> Json:
    """Describe the routes that are read with GET."""
    texts = {"type": "array", "items": {"type": "string"}}
    hello: Json = {
        "type": "object",
        "required": ["model", "bundle", "penstock", "inputs", "outputs", "routes"],
        "properties": {
            **{name: {"type": "string"} for name in ("model", "bundle", "penstock")},
            **dict.fromkeys(("inputs", "outputs", "routes"), texts),
        },
    }
    server: Json = {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "extensions": texts,
        },
    }
    live: Json = {
        "type": "object",
        "required": ["live"],
        "properties": {"live": {"type": "boolean"}},
    }
    ready: Json = {
        "type": "object",
        "required": ["ready"],
        "properties": {"ready": {"type": "boolean"}},
    }
    return {
        "/": _read("What is served", hello, guarded=guarded),
        "/v2": _read(
            "Server metadata (Open Inference Protocol)", server, guarded=guarded
        ),
        "/v2/health/live": _read("Whether the server lives", live, guarded=False),
        "/v2/health/ready": _read(
            "Whether it can answer", ready, guarded=False, unready=True
        ),
        "/openapi.json": _read("This description", {"type": "object"}, guarded=guarded),
        "/docs": _read(
            "A page to look and ask", {"type": "string"}, guarded=False, media="text/html"
        ),
        "/metrics": _read(
            "Meters for Prometheus",
            {"type": "string"},
            guarded=guarded,
            media="text/plain",
        ),
    }


def _read(
    summary: str,
    schema: Json,
    *,
    guarded: bool,
    unready: bool = False,
    media: str = "application/json",
) -> Json:
    """Describe a path with GET alone (HEAD returns its head)."""
    get: Json = {
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {media: {"schema": schema}}},
            **_errors(guarded=guarded),
        },
    }
    if unready:
        get["responses"]["503"] = _content("it cannot answer now", schema)
    if not guarded:
        # An empty list lifts the document's own requirement of a token.
        get["security"] = []
    return {"get": get}


def _errors(*codes: str, guarded: bool) -> Json:
    # Without a token no request is refused for lacking one.
    listed = sorted({*codes, "401"}) if guarded else codes
    return {code: _content(_TEXTS[code], _ref("Error")) for code in listed}


def _content(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(bundle: Bundle, options: Serve) -> Json:
    predictor = bundle.predictor()
    columns = natural_columns(bundle)
    record: Json = {
        "type": "object",
        "required": list(columns),
        "description": (
            "One row as in training. Every field is required; null means missing. Unknown fields are ignored."
        ),
        "properties": {
            name: {
                **field_schema(kind),
                "description": _in_training(predictor.columns[name], kind),
            }
            for name, kind in columns.items()
        },
    }
    # A kept field that is an input is described already.
    for name in bundle.keep:
        record["properties"].setdefault(
            name, {"description": "Carried along into the prediction, if given."}
        )
    lenient: Json = {
        "type": "object",
        "required": list(columns),
        "properties": {name: _taken(kind) for name, kind in columns.items()},
        "description": (
            "One row of values that may be taken for those of training, as the text 41 for the number."
        ),
    }
    answers: Json = {
        field.name: field_schema(field.type) for field in predictor.answer_schema
    }
    for name, written in kept_names(bundle.keep, answers).items():
        answers[written] = {
            "description": f"The record's own {name!r}, where it was given."
        }
    return {
        "Record": record,
        # As in training, or values that a feature may take for those of training.
        "Row": {
            "anyOf": [_ref("Record"), lenient, *_nested(predictor.shape, list(columns))]
        },
        "Prediction": {"type": "object", "properties": answers},
        **_envelopes(),
        **_tensor_schemas(options),
    }


def _in_training(raw: pa.DataType, natural: pa.DataType) -> str:
    """Say what a field was in the training data, and that a text among numbers is read as one."""
    if raw == natural:
        return f"Arrow type {raw} in training"
    return (
        f"Arrow type {raw} in training, whose texts are read as numbers: give a number, or a text that is"
        " written as there"
    )


def _nested(shape: RecordShape, columns: list[str]) -> list[Json]:
    """Schema of a row in the shape of the source, where that may differ from flat fields."""
    renamed = any(len(shape.spellings(name)) > 1 for name in columns)
    if not (shape.sparse or renamed or any("." in name for name in columns)):
        return []
    left_out = " A field that is left out is missing." if shape.sparse else ""
    return [
        {
            "type": "object",
            "minProperties": 1,
            "description": (
                "One row in the shape of the training data's source: a field a.b as the field b of an object"
                f" a.{left_out}"
            ),
        }
    ]


def _envelopes() -> Json:
    """Schemas of an answer around its predictions, and of an error."""
    text: Json = {"type": "string"}
    problem: Json = {
        "type": "object",
        "properties": {
            "row": {"type": ["integer", "null"]},
            "field": {"type": ["string", "null"]},
            "reason": text,
        },
    }
    predictions: Json = {"type": "array", "items": _ref("Prediction")}
    problems: Json = {"type": "array", "items": problem}
    return {
        "Answer": {
            "type": "object",
            "required": ["predictions", "model", "request_id"],
            "properties": {"predictions": predictions, "model": text, "request_id": text},
        },
        "Error": {
            "type": "object",
            "required": ["error", "request_id"],
            "properties": {"error": text, "request_id": text, "problems": problems},
        },
    }


def _tensor_schemas(options: Serve) -> Json:
    """Schemas of what goes over the Open Inference Protocol."""
    text: Json = {"type": "string"}
    return {
        "InferenceRequest": _inference_request(options.max_rows),
        "InferenceAnswer": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": text,
                "model_version": text,
                "id": text,
                "outputs": {"type": "array", "items": _tensor({"type": "object"})},
            },
        },
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": _TENSOR_METADATA},
                "outputs": {"type": "array", "items": _TENSOR_METADATA},
            },
        },
    }


_DATATYPE: Json = {"type": "string", "enum": list(DATATYPES)}
_PARAMETERS: Json = {"type": ["object", "null"]}
_TENSOR_METADATA: Json = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": _DATATYPE,
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
}


def _inference_request(max_rows: int) -> Json:
    output: Json = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "description": (
            f"Tensors of at most {max_rows} rows. In the binary extension, bytes follow the JSON,"
            " whose length is in Inference-Header-Content-Length."
        ),
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": _PARAMETERS,
            "inputs": {"type": "array", "items": _tensor(_PARAMETERS)},
            "outputs": {"type": ["array", "null"], "items": output},
        },
    }


def _tensor(parameters: Json) -> Json:
    """Schema of a tensor in a request, or in an answer, where parameters are never
    null.
    """
    axis: Json = {"type": "integer", "minimum": 0, "maximum": LONGEST_AXIS}
    return {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": axis, "minItems": 1},
            "datatype": _DATATYPE,
            "data": {"type": "array", "items": {"type": [*_SCALAR, "array"]}},
            "parameters": parameters,
        },
    }


def _taken(kind: pa.DataType) -> Json:
    """Return a JSON Schema of everything that a field of this Arrow type accepts.

    One value of any kind for a column of single values: whether the text "41" is a number, or 1 is true, is
    the feature's to say, as it is in training.
    """
    if pa.types.is_struct(kind):
        return {"type": ["object", "null"]}
    if pa.types.is_nested(kind):
        return {"type": ["array", "null"]}
    return {"type": _SCALAR}


def field_schema(kind: pa.DataType) -> dict[str, Any]:
    """Return a JSON Schema of the values of an Arrow type, null among them."""
    if pa.types.is_boolean(kind):
        return {"type": ["boolean", "null"]}
    if pa.types.is_integer(kind):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"type": ["number", "null"]}
    if pa.types.is_temporal(kind):
        return {
            "type": ["string", "null"],
            "format": "date" if pa.types.is_date(kind) else "date-time",
        }
    if pa.types.is_struct(kind):
        return {
            "type": ["object", "null"],
            "properties": {field.name: field_schema(field.type) for field in kind},
        }
    if (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    ):
        return {"type": ["array", "null"], "items": field_schema(kind.value_type)}
    if is_bytes(kind):
        return {"type": ["string", "null"], "contentEncoding": "base64"}
    return {"type": ["string", "null"]}
