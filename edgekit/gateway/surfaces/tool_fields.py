"""Fields that several surfaces take the same way: tools, structured output, biases.

Beside each check stands what it accepts as JSON schema, for the served description.
"""

from __future__ import annotations

from typing import Any

from edgekit.gateway.body import Body
from edgekit.gateway.job import MAX_TOOLS, MAX_TOOLS_BYTES
from edgekit.gateway.problems import bad_field
from edgekit.gateway.schema_limits import check_schema

LOGIT_BIAS = {
    "propertyNames": {"pattern": "^[0-9]+$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
TOOL_CHOICES = ("none", "auto", "required")
FUNCTION: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
    },
}
FUNCTIONS = {
    "items": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {"type": {"const": "function"}, "function": FUNCTION},
    },
    "maxItems": MAX_TOOLS,
}
_NAMED_TOOL = {
    "type": "object",
    "required": ["function"],
    "properties": {
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 200}},
        }
    },
}
TOOL_CHOICE = {"anyOf": [{"enum": list(TOOL_CHOICES)}, _NAMED_TOOL]}
RESPONSE_FORMAT = {
    "oneOf": [
        {"required": ["type"], "properties": {"type": {"const": "text"}}},
        {
            "required": ["type"],
            "properties": {"type": {"const": "json_object"}, "schema": {}},
            "additionalProperties": False,
        },
        {
            "required": ["type", "json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {
                    "type": "object",
                    "required": ["schema"],
                    "properties": {"schema": {"type": "object"}},
                },
            },
            "additionalProperties": False,
        },
    ]
}


def take_logit_bias(body: Body) -> dict[str, Any] | None:
    """Token ids to what is added to their logits. Raises ApiError."""
    table = body.capped("logit_bias", dict, LOGIT_BIAS)
    for token, bias in (table or {}).items():
        if not (token.isascii() and token.isdigit()) or type(bias) not in (int, float):
            raise bad_field("logit_bias", "must map token ids to numbers")
        if not -100 <= bias <= 100:
            raise bad_field("logit_bias", "must be from -100 to 100")
    return table or None


def take_tools(body: Body) -> list[Any] | None:
    """Chat's `tools`; None without any. Raises ApiError."""
    tools: list[Any] = body.capped("tools", list, FUNCTIONS, max_bytes=MAX_TOOLS_BYTES) or []
    if len(tools) > MAX_TOOLS:
        raise bad_field("tools", f"must be at most {MAX_TOOLS}")
    taken = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise bad_field(f"tools[{index}]", "must be a function")
        function = take_function(tool.get("function"), f"tools[{index}].function")
        taken.append({"type": "function", "function": function})
    return taken or None


def take_function(function: Any, path: str) -> dict[str, Any]:
    """What a model is shown of a function; nothing that an engine stumbles over. Raises ApiError.

    Other fields (`strict`, for one) are about the vendors' own services and left out.
    """
    if not isinstance(function, dict):
        raise bad_field(path, "must be an object")
    name = function.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise bad_field(f"{path}.name", "must be a name of at most 200 characters")
    if not isinstance(function.get("description"), str | None):
        raise bad_field(f"{path}.description", "must be a string")
    if not isinstance(function.get("parameters"), dict | None):
        raise bad_field(f"{path}.parameters", "must be an object")
    check_schema(function.get("parameters"), f"{path}.parameters")
    shown = {key: function.get(key) for key in FUNCTION["properties"]}
    return {key: value for key, value in shown.items() if value is not None}


def check_tool_choice(choice: Any) -> Any:
    """Chat's `tool_choice` as it is, or None for none. Raises ApiError."""
    if choice is None or choice in TOOL_CHOICES:
        return choice
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        name = choice["function"].get("name")
        if isinstance(name, str) and len(name) <= 200:
            return {"type": "function", "function": {"name": name}}
    raise bad_field("tool_choice", "must be none, auto, required or a function")


def check_response_format(table: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat's `response_format` as it is; None for plain text. Raises ApiError."""
    if table is None or table.get("type") == "text":
        return None
    check_schema(table, "response_format")
    if table.get("type") == "json_object" and set(table) <= {"type", "schema"}:
        return dict(table)
    schema = table.get("json_schema")
    if (
        table.get("type") == "json_schema"
        and set(table) == {"type", "json_schema"}
        and isinstance(schema, dict)
        and isinstance(schema.get("schema"), dict)
    ):
        return dict(table)
    raise bad_field("response_format", "must be text, json_object or json_schema with a schema")


def schema_of(response_format: dict[str, Any]) -> Any:
    """The schema that `check_response_format` let through, for an engine's other endpoint."""
    if response_format["type"] == "json_object":
        return response_format.get("schema", {"type": "object"})
    return response_format["json_schema"]["schema"]
