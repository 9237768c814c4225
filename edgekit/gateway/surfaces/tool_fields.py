"""Fields that several surfaces take the same way: tools, structured output, biases.

Beside each check stands what it accepts as JSON schema, for the served description.
"""

from __future__ import annotations

from typing import Any

from edgekit.gateway.body import Body
from edgekit.gateway.job import MAX_TOOLS, MAX_TOOLS_BYTES
from edgekit.gateway.problems import bad_field

LOGIT_BIAS = {
    "propertyNames": {"pattern": "^[0-9]+$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
TOOL_CHOICES = ("none", "auto", "required")
FUNCTIONS = {
    "items": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {"type": {"const": "function"}, "function": {"type": "object"}},
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
    """Chat's `tools` as they are; None without any. Raises ApiError."""
    tools: list[Any] | None = body.capped(
        "tools", list, FUNCTIONS, max_bytes=MAX_TOOLS_BYTES
    )
    for index, tool in enumerate(tools or []):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise bad_field(f"tools[{index}]", "must be a function")
        if not isinstance(tool.get("function"), dict):
            raise bad_field(f"tools[{index}].function", "must be an object")
    if tools and len(tools) > MAX_TOOLS:
        raise bad_field("tools", f"must be at most {MAX_TOOLS}")
    return tools or None


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
