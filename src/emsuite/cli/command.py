"""The command line that all stage scripts share: help with an example, one-line errors, plain logging."""

import logging
import math
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TextIO

import click

from emsuite.common.errors import BadInput, EmsuiteError, RunFailed, in_lines, of_file_system, one_line
from emsuite.common.process import end_with_workflow, leave, set_up_process


class StageCommand(click.Command):
    """A click command that ends with one line on bad input (exit code 2) or a failed run (exit code 1)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; refuse words and numbers that no option can mean."""
        if any(not word.strip() for word in args):
            raise click.UsageError("an empty word in the command line, expected a value")
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            for part in value if isinstance(value, tuple) else (value,):
                if (isinstance(part, float) and not math.isfinite(part)) or (
                    isinstance(part, int) and abs(part) >= 2**63
                ):
                    raise click.UsageError(f"Invalid value for '--{name.replace('_', '-')}': expected a usual number")
        return rest

    def main(self, *args: Any, **extra: Any) -> Any:
        """Set up the process and run the command as a script: an error becomes one line and an exit code."""
        set_up_process()
        end_with_workflow()
        try:
            _check_image()
            with redirect_stdout(_Printable(sys.stdout)):
                code = super().main(*args, **extra | {"standalone_mode": False})
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.Exit as end:
            sys.exit(end.exit_code)
        except click.ClickException as error:
            fail(f"{error.format_message()} (--help shows what is expected)", 2)
        except EmsuiteError as error:
            fail(str(error), error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            fail("interrupted", 130)
        except ModuleNotFoundError as error:
            fail(f"this Python lacks the package {error.name}; expected what requirements.lock pins", 1)
        except (MemoryError, OSError, RuntimeError) as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11 wraps it where a class is made
                fail("interrupted", 130)
            if (ending := _explain(error)) is None:
                raise
            fail(*ending)


def _explain(error: Exception) -> tuple[str, int] | None:
    """Return the message and the exit code for an error of the machine, or of a path; None for any other."""
    if isinstance(error, OSError):
        return of_file_system(error)
    if "Symlink loop" in str(error):  # Python 3.11 and 3.12, where a path is resolved
        return f"{error}; expected a path that leads to a file", BadInput.exit_code
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_out_of_memory(error)):
        return f"out of memory: {error}", RunFailed.exit_code
    return None


class _Printable:
    """A standard output that shows names as `printable` does; line breaks stay."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(in_lines(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Formatter(logging.Formatter):
    """Shows messages of the log as errors are shown, each on one line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        # indented, so that no line of an error's text begins as another message
        return in_lines(super().formatException(ei)).replace("\n", "\n  ")


def _check_image() -> None:
    if "EMSUITE_IMAGE" in os.environ:  # set in images of the suite
        from emsuite.common.locked_packages import check_image_here

        check_image_here()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a GPU torch raises a class of its own, which is not imported here because that takes seconds. On a CPU it
    # raises a plain RuntimeError.
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def fail(message: str, code: int) -> None:
    """Print `message` as one line on stderr and end the process with `code`."""
    print("error: " + one_line(message), file=sys.stderr)
    leave(code)


def stage(example: str) -> Callable[[Callable[..., Any]], StageCommand]:
    """Return a decorator that turns a function with click options into the command of a stage script.

    `example` is shown at the end of its --help. The process is set up before the function runs, not before the script's
    imports: import NumPy and torch inside the function.
    """

    def decorate(function: Callable[..., Any]) -> StageCommand:
        epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.strip().splitlines())
        settings = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
        command = click.command(cls=StageCommand, epilog=epilog, context_settings=settings)(function)
        command.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_set_up_logging,
                is_eager=True,
                help="Say more about what is being done.",
            )
        )
        return command

    return decorate


def _set_up_logging(_context: click.Context, _option: click.Parameter, verbose: bool) -> None:
    others, own = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stderr)
    others.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    own.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[others])
    logger = logging.getLogger("emsuite")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    logger.handlers = [own]
