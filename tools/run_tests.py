"""`make test`: what the machine needs, then linters, type checks, import floors and all tests.

Every check runs even when an earlier one failed; the exit status is that of the worst. Tests that
cannot run on this machine are named in the last lines, by tests/conftest.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tools.debian_packages import TESTS, ensure_packages

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

LINTERS = (
    ("ruff", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ("mypy", [str(BIN / "mypy")]),
    ("import floors", [str(BIN / "lint-imports"), "--no-logo"]),
)


def main() -> int:
    """Run everything; 0 only when all of it passed."""
    parser = argparse.ArgumentParser(description="linters and tests")
    parser.add_argument("--lint-only", action="store_true")
    parser.add_argument("pytest_arguments", nargs="*")
    options = parser.parse_args()
    failed = [name for name, argv in LINTERS if not _passes(name, argv)]
    if not options.lint_only:
        missing = ensure_packages(TESTS, print)
        if missing:
            print(f"not installed and not installable here: {', '.join(missing)}")
        pytest = [sys.executable, "-m", "pytest", *options.pytest_arguments]
        if subprocess.run(pytest, cwd=ROOT, check=False).returncode != 0:
            failed.append("pytest")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def _passes(name: str, argv: list[str]) -> bool:
    started = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    verdict = "ok" if done.returncode == 0 else "FAILED"
    print(f"{name}: {verdict} in {time.monotonic() - started:.1f} s", flush=True)
    if done.returncode != 0:
        print((done.stdout + done.stderr)[-6000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
