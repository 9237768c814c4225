"""The forwarder: copies of audit records to this host's own journal or syslog."""

from edgekit.forwarder.daemon import main

__all__ = ["main"]
