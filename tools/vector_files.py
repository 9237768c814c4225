"""Files of test vectors: how what lies there differs from what its generator would write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


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
