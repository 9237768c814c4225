"""Long jobs with a name: one command, and a place in the usual run only when their inputs changed.

A job that passed leaves a note in the cache under the digest of everything that decides how it
ends. The usual run then says by name that it was not run again, and by which command it would be.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_AGAIN = "not run again:"
"""How the reason of a skip begins (tests/conftest.py)."""


class Outcome(Protocol):
    """What came of a job."""

    figures: dict[str, Any]


Result = TypeVar("Result", bound=Outcome)


@dataclass(frozen=True)
class NamedJob:
    """A job's name, the command that runs it anyway, and the files and folders it depends on."""

    name: str
    command: str
    inputs: tuple[str, ...]

    def key(self) -> str:
        """Digest of the inputs' names and bytes, and of the interpreter's version."""
        hasher = hashlib.sha256()
        for path in self._files():
            hasher.update(f"{path.relative_to(REPOSITORY)}\0".encode())
            hasher.update(hashlib.sha256(path.read_bytes()).digest())
        return hasher.hexdigest()[:32]

    def _files(self) -> Iterable[Path]:
        for name in self.inputs:
            root = REPOSITORY / name
            found = [root] if root.is_file() else sorted(root.rglob("*"))
            assert found, f"{name} is an input of {self.name} and is not there"
            yield from (p for p in found if p.is_file() and "__pycache__" not in p.parts)

    def passed_before(self, cache: Path) -> str | None:
        """In words, when it passed with these very inputs; None when it never did."""
        note = self._note(cache)
        if not note.is_file():
            return None
        when = json.loads(note.read_text("utf-8"))["at"]
        day = time.strftime("%Y-%m-%d", time.gmtime(when))
        return f"{NOT_AGAIN} {self.name} passed with these inputs on {day}; {self.command}"

    def has_passed(self, cache: Path, figures: dict[str, Any]) -> None:
        """Leave the note."""
        note = self._note(cache)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"at": int(time.time()), "figures": figures}), "utf-8")

    def run_again(
        self,
        cache: Path,
        scratch: Callable[[], AbstractContextManager[str]],
        run: Callable[[Path], Result],
        check: Callable[[Result], None],
    ) -> dict[str, Any]:
        """Run the whole job in a scratch folder, check what came of it, leave the note.

        Returns the run's figures. Raises what `run` and `check` raise; then there is no note.
        """
        with scratch() as folder:
            outcome = run(Path(folder))
            check(outcome)
        self.has_passed(cache, outcome.figures)
        return outcome.figures

    def _note(self, cache: Path) -> Path:
        return cache / "jobs" / f"{self.name.replace(' ', '-')}-{self.key()}.json"
