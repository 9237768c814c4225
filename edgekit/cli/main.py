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
        print(f"error[usage]: {_usage_text(error)}", file=sys.stderr)
        print("hint: edgekit --help", file=sys.stderr)
        return ExitCode.USAGE
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


def _usage_text(error: typer.TyperException) -> str:
    """The parser's complaint in this project's wording: lower case, no full stop."""
    text = str(getattr(error, "message", "") or error).strip().rstrip(".")
    return text[:1].lower() + text[1:]


class _TerminatedError(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that undo code runs."""


def _on_terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError
