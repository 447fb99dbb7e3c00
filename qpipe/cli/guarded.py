"""Where errors become lines and exit codes, in one place for all commands."""

from __future__ import annotations

import codecs
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO, cast

from qpipe.allowance import exhausted
from qpipe.errors import Interrupted, InterruptedFleet, QpipeError
from qpipe.flow.stopping import GO_ON

READER_GONE = 128 + signal.SIGPIPE
"""What a shell reports of every program whose reader has gone."""


def run_app(arguments: list[str]) -> int:
    """Run the command line; returns the exit code of the documented table."""
    with _streams() as read:
        try:
            with _ended_by_signals():
                code = _run(arguments)
        except KeyboardInterrupt:  # the command line itself was still being imported
            code = _say_interrupted(as_json="--json" in arguments)
    return code if read else READER_GONE


def _run(arguments: list[str]) -> int:
    from typer.exceptions import Abort, TyperException
    from typer.main import get_command

    from qpipe.cli.app import app

    as_json = "--json" in arguments
    try:
        code = get_command(app).main(arguments, prog_name="qpipe", standalone_mode=False)
        sys.stdout.flush()
        if code == Interrupted.code:  # typer turns Ctrl-C into this code without a word
            raise KeyboardInterrupt  # noqa: TRY301  (the same words as below)
    except QpipeError as error:
        said = isinstance(error, InterruptedFleet)  # one object on stdout, not two
        return say_error(error.message, error.hint, error.code, as_json=as_json and not said)
    except (KeyboardInterrupt, Abort):
        return _say_interrupted(as_json=as_json)
    except TyperException as error:
        asked = getattr(getattr(error, "ctx", None), "command_path", "qpipe")  # only what is wrong in use has one
        return say_error(error.format_message(), f"see {asked} --help", 2, as_json=as_json)
    except (BrokenPipeError, SystemExit):  # typer turns the former into the latter
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the one place that turns a bug into exit code 1
        return _say_unexpected(error, as_json=as_json)
    return code if isinstance(code, int) else 0


class Unheard:
    """A text stream whose reader may go: from then on it writes to nobody."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of any stream."""
        with self._without_reader():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As of any stream."""
        with self._without_reader():
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    @contextmanager
    def _without_reader(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            _to_nobody(self._stream)


@contextmanager
def _streams() -> Iterator[bool]:
    """What was started with stdout or stderr closed (`>&-`) says it to nobody; yields whether somebody reads stdout.

    stderr may go away in the middle (a terminal that is closed, `2>&1 | head`): what is told there ends no work.
    """
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout, sys.stderr = sys.stdout or nowhere, cast("TextIO", Unheard(sys.stderr or nowhere))
        if isinstance(sys.stdout, io.TextIOWrapper):  # a locale without our signs costs the signs, not the verdict
            is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
            sys.stdout.reconfigure(errors="backslashreplace" if is_utf8 else "replace")
        try:
            yield before[0] is not None
        finally:
            sys.stdout, sys.stderr = before


def _say_unexpected(error: Exception, *, as_json: bool) -> int:
    """A full disk and whatever else is used up are nobody's bug; what else nobody has foreseen is ours."""
    if hint := exhausted(error):
        return say_error(str(error) or "no more memory", hint, 5, as_json=as_json)
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return say_error("the working folder is no longer there", "cd to a folder that is", 2, as_json=as_json)
    traceback.print_exc()
    return say_error(f"{type(error).__name__}: {error}", "this is a bug in qpipe: please report it", 1, as_json=as_json)


def _has_folder() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def _say_interrupted(*, as_json: bool) -> int:
    """Pressed again meanwhile, nothing more is said."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return say_error("interrupted", GO_ON, Interrupted.code, as_json=as_json)
    finally:
        signal.signal(signal.SIGINT, before)


def _written(text: str) -> bool:
    """Whether stdout took it: what is wrong may be stdout itself."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        _to_nobody(sys.stdout)
        return False
    return True


def _reader_gone() -> int:
    """Whoever read our output has gone: nothing is wrong, but no verdict was delivered, so that 0 would be a lie."""
    _to_nobody(sys.stdout)
    return READER_GONE


def _to_nobody(stream: TextIO) -> None:
    """What is left to be flushed goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say_error(message: str, hint: str, code: int, *, as_json: bool) -> int:
    """Print one error for people (stderr) or programs (stdout); returns its code."""
    hint = "; ".join(filter(None, (hint, _of_locale(message))))
    if as_json and _written(json.dumps({"error": {"message": message, "hint": hint, "code": code}}) + "\n"):
        return code
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    return code


def _of_locale(message: str) -> str:
    """What to say of a name that files may have, but not under this locale: it looks as if they were not there."""
    encoding = sys.getfilesystemencoding()
    if message.isascii() or codecs.lookup(encoding).name == "utf-8":
        return ""
    return f"names of files are {encoding} under this locale: set PYTHONUTF8=1 where they are UTF-8"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A request to end and a terminal that is closed are Ctrl-C; what the caller ignores (`nohup`) stays ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
