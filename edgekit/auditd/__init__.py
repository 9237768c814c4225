"""The audit writer: one process that appends records and can do nothing else with them."""

from edgekit.auditd.daemon import main

__all__ = ["main"]
