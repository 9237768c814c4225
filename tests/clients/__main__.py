"""`python -m tests.clients [EXAMPLES]`: all of Schemathesis, in front of the real engines."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.clients.conftest import answering_site
from tests.clients.described import check_description


def main() -> None:
    """Print the report; an AssertionError names every finding."""
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as work, answering_site(Path(work)) as site:
        count, report = check_description(site, "examples,coverage,fuzzing", examples)
    print(report[-1500:])
    print(f"requests: {count}; findings: 0")


if __name__ == "__main__":
    main()
