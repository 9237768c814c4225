"""The supervisor: starts one engine and vouches for it towards the service manager."""

from edgekit.supervisor.daemon import main

__all__ = ["main"]
