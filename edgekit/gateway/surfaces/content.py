"""A user's content with pictures: every surface's parts as OpenAI's chat has them.

What a picture is gets looked at later, off the event loop (`gateway.pictures`); here it has to be
a `data:` URL, or base64 that becomes one. No other URL is ever followed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgekit.core.pictures import MAX_PICTURES
from edgekit.gateway.body import Body
from edgekit.gateway.job import MAX_PARTS, take_part_text
from edgekit.gateway.problems import ApiError, bad_field

Content = str | list[dict[str, Any]]
"""A text, or text and pictures in order."""
BASE64 = {"type": "string", "contentEncoding": "base64"}
DATA_URL = {"type": "string", "pattern": "^data:image/(png|jpeg|gif);base64,"}
_OPENAI = {"anyOf": [DATA_URL, {"type": "object", "required": ["url"],
                                "properties": {"url": DATA_URL}}]}


def picture_part(url: object, where: str) -> dict[str, Any]:
    """A picture as the engine reads it. Raises ApiError 400."""
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ApiError(
            400,
            "invalid_image",
            f"{where}: must be a data: URL with base64; this appliance fetches nothing",
            param=where.rpartition("[")[0],
        )
    return {"type": "image_url", "image_url": {"url": url}}


def base64_part(data: object, where: str) -> dict[str, Any]:
    """The same of plain base64; its kind is read from its first bytes, whatever is said."""
    if not isinstance(data, str):
        raise bad_field(where, "must be base64 text")
    return picture_part(f"data:image/any;base64,{data}", where)


def with_text(pictures: list[dict[str, Any]], text: str) -> Content:
    """Content with these pictures before the text, as Ollama puts them."""
    return [*pictures, {"type": "text", "text": text}] if pictures else text


def take_pictures(reader: Body) -> list[dict[str, Any]]:
    """Ollama's `images`: base64 without a URL around it."""
    values = reader.raw(
        "images", {"type": "array", "items": BASE64, "maxItems": MAX_PICTURES}
    )
    if not isinstance(values, list | None):
        raise bad_field(reader.name("images"), "must be a list")
    where = reader.name("images")
    return [base64_part(value, f"{where}[{n}]") for n, value in enumerate(values or ())]


def take_content(
    reader: Body, key: str, texts: Collection[str] = ("text",), picture: str = "image_url"
) -> Content | None:
    """A string, or parts of these kinds; those without a picture are joined by newlines."""
    value = reader.raw(key, {"type": "string"})
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise bad_field(reader.name(key), f"must be a string or at most {MAX_PARTS} parts")
    return joined([_part(part, texts, picture) for part in reader.parts(key, value)])


def joined(parts: list[dict[str, Any]]) -> Content:
    """The parts, or one text when none of them is a picture."""
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(reader: Body, texts: Collection[str], picture: str) -> dict[str, Any]:
    kind = reader.raw("type", {"enum": [*texts, picture]}, required=True)
    if kind == picture:
        return _picture(reader)
    if kind not in texts:
        where = reader.name("type").removesuffix(".type")
        raise ApiError(
            400,
            "unsupported_content",
            f"{where}: only text and image parts are supported",
            param=where.rpartition("[")[0],
        )
    return {"type": "text", "text": take_part_text(reader)}


def _picture(reader: Body) -> dict[str, Any]:
    """OpenAI writes the URL in a table in chat, and plainly in responses."""
    value = reader.raw("image_url", _OPENAI, required=True)
    where = reader.name("image_url")
    reader.ignore(frozenset({"detail", "cache_control"}))
    reader.finish()
    return picture_part(value.get("url") if isinstance(value, dict) else value, where)
