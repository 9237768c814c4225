"""The weights policy applied to files on disk; the door itself is in system/weights.py."""

from __future__ import annotations

from edgekit.system.weights import check_stored_weights

__all__ = ["check_stored_weights"]
