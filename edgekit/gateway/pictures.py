"""Pictures of a request, looked at before the engine is asked: can the model see, are they some."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgekit.core.pictures import (
    MAX_ALL_PIXELS,
    MAX_PICTURES,
    Picture,
    check_expansion,
    read_data_url,
)
from edgekit.errors import FormatError
from edgekit.gateway.job import Job
from edgekit.gateway.problems import ApiError


async def with_pictures(job: Job) -> Job:
    """The same job with its pictures checked. Raises ApiError 400.

    What takes longer than reading a header is done in a thread.
    """
    urls = [part["image_url"]["url"] for part in _picture_parts(job)]
    if not urls:
        return job
    if "vision" not in job.model.capabilities:
        able = ", ".join(job.model.capabilities)
        raise ApiError(
            400, "unsupported",
            f"{job.asked_name[:100]!r} does not support images; it supports: {able}",
            param="model",
        )
    if len(urls) > MAX_PICTURES:
        raise bad_picture(f"there are more than {MAX_PICTURES}")
    pictures = await asyncio.to_thread(_read, urls)
    return replace(job, pictures=tuple(picture.data for picture in pictures))


def bad_picture(why: str) -> ApiError:
    """A refusal of a request's pictures."""
    return ApiError(400, "invalid_image", f"images: {why}", param="messages")


def _read(urls: list[str]) -> list[Picture]:
    pictures, pixels = [], 0
    for number, url in enumerate(urls, 1):
        try:
            picture = read_data_url(url)
            pixels += picture.pixels
            if pixels > MAX_ALL_PIXELS:
                raise bad_picture(f"together they have more than {MAX_ALL_PIXELS} pixels")
            check_expansion(picture)
        except FormatError as error:
            raise bad_picture(f"number {number} {error.message}") from error
        pictures.append(picture)
    return pictures


def _picture_parts(job: Job) -> Iterator[dict[str, Any]]:
    for message in job.body.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if part["type"] == "image_url")
