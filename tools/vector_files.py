"""Files of test vectors: how what lies there differs from what its generator would write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class BrokenVectorError(ValueError):
    """A file that should be a vector is none. Its text is a line that names the file."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever is wrong with the bytes of this file becomes a BrokenVectorError."""
    try:
        yield
    except BrokenVectorError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        text = str(error).replace("\n", " ")
        raise BrokenVectorError(f"{path.name} is no vector: {text[:200]}") from error


def differences(folder: Path, wanted: Mapping[str, bytes], *patterns: str) -> list[str]:
    """Paths below `folder` that differ from `wanted`, are missing or, of `patterns`, left over."""
    present = {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file()
    }
    return sorted(
        name for name in {*wanted, *present} if wanted.get(name) != present.get(name)
    )
