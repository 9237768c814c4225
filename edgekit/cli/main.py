"""The command line's top: runs a command, renders its error, returns its exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from edgekit.cli.app import build_app
from edgekit.cli.report import error_table, render_error, render_json
from edgekit.errors import EdgekitError
from edgekit.exit_codes import ExitCode


def main(arguments: list[str]) -> int:
    """Run one command line; results go to stdout, everything else to stderr."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        result = typer.main.get_command(build_app())(
            arguments, prog_name="edgekit", standalone_mode=False
        )
        return result if isinstance(result, int) else ExitCode.OK
    except EdgekitError as error:
        if "--json" in arguments:
            print(render_json(error_table(error)))
        print(render_error(error), file=sys.stderr)
        return error.exit_code
    except typer.TyperException as error:
        return _report_usage(error, as_json="--json" in arguments)
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except _TerminatedError:
        print("stopped by SIGTERM", file=sys.stderr)
        return ExitCode.TERMINATED
    except BrokenPipeError:
        return ExitCode.OK
    except Exception:  # noqa: BLE001 - the one place where a bug becomes an exit code
        traceback.print_exc()
        print(
            "error[internal]: this is a bug in edgekit; please report the lines above",
            file=sys.stderr,
        )
        return ExitCode.INTERNAL


def _report_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """The parser's complaint in this project's wording: lower case, no full stop."""
    text = error.format_message().strip()
    if text.startswith("Usage:"):  # a group without a verb: its help is the answer
        print(text, file=sys.stderr)
        return ExitCode.USAGE
    text = text[:1].lower() + text[1:].rstrip(".")
    hint = "edgekit --help"
    if as_json:
        code = int(ExitCode.USAGE)
        table = {"schema": "edgekit.error/1", "error": "usage", "code": code, "message": text}
        print(render_json({**table, "hint": hint}))
    print(f"error[usage]: {text}\nhint: {hint}", file=sys.stderr)
    return ExitCode.USAGE


class _TerminatedError(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that undo code runs."""


def _on_terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError
