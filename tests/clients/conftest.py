"""One gateway with real engines behind it, for every client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.gateway.conftest import Site, running_real_engine, running_site


@pytest.fixture(scope="package")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway before two real engines, kept for all tests of the clients."""
    with answering_site(Path(tmp_path_factory.mktemp("c"))) as site:
        yield site


@contextmanager
def answering_site(work: Path) -> Iterator[Site]:
    """A gateway before two real engines: the demo model chats as `demo`, embeds as `demo-embed`."""
    chat, embedding = str(work / "chat.sock"), str(work / "embed.sock")
    with ExitStack() as stack:
        stack.enter_context(running_real_engine(chat, work))
        stack.enter_context(running_real_engine(embedding, work, mode="embedding"))
        scopes = ("chat", "embed", "metrics", "admin")
        site = running_site(work, None, chat, embedding_socket=embedding, scopes=scopes)
        yield stack.enter_context(site)
