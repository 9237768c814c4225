"""The gateway: OpenAI's and Ollama's API in front of an engine that only it can reach."""

from edgekit.gateway.daemon import main

__all__ = ["main"]
