"""Where errors become lines and exit codes, in one place for all commands."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

from qpipe.errors import Interrupted, QpipeError


def run_app(arguments: list[str]) -> int:
    """Run the command line; returns the exit code of the documented table."""
    from typer.exceptions import Abort, TyperException
    from typer.main import get_command

    from qpipe.cli.app import app

    as_json = "--json" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = get_command(app).main(arguments, prog_name="qpipe", standalone_mode=False)
        sys.stdout.flush()
    except QpipeError as error:
        return say_error(error.message, error.hint, error.code, as_json=as_json)
    except (KeyboardInterrupt, Abort):
        return say_error("interrupted", "run the same command again to go on", Interrupted.code, as_json=as_json)
    except TyperException as error:
        return say_error(error.format_message(), "see qpipe --help", 2, as_json=as_json)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing is wrong with the work
        return 0
    except Exception as error:  # noqa: BLE001 - the one place that turns a bug into exit code 1
        traceback.print_exc()
        return say_error(
            f"{type(error).__name__}: {error}", "this is a bug in qpipe: please report it", 1, as_json=as_json
        )
    return code if isinstance(code, int) else 0


def say_error(message: str, hint: str, code: int, *, as_json: bool) -> int:
    """Print one error for people (stderr) or programs (stdout); returns its code."""
    if as_json:
        sys.stdout.write(json.dumps({"error": {"message": message, "hint": hint, "code": code}}) + "\n")
        return code
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    return code


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
