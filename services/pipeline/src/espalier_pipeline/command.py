"""The `espalier` command: its errors, exit codes and `--json`; the commands themselves stand in `commands/`.

Imports neither torch nor Ray, and the store only where a command needs it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer
from espalier_runtime.parent import watch_parent
from espalier_sdk.errors import EXIT_INTERRUPTED, EspalierError, Problem

from espalier_pipeline.commands import building, endpoint, installed, looking, models
from espalier_pipeline.commands.printing import print_problems

_UsageError: Any = typer.BadParameter.__base__  # typer bundles click and exports no other way to its UsageError
_QUIET = {
    "HF_DATASETS_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

app = typer.Typer(
    name="espalier",
    help="Build your own language models, know which one is best, and serve it behind an A/B endpoint.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
building.register(app)
looking.register(app)
endpoint.register(app)
installed.register(app)
models.register(app)


def main() -> None:
    """Runs the command line and exits with the code of what happened, or with its parent where that one asks for it."""
    watch_parent()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; errors are printed once, without a traceback."""
    as_json = "--json" in arguments
    try:
        code = app(arguments, standalone_mode=False)
        return int(code) if isinstance(code, int) else 0
    except EspalierError as error:
        report(error.problems, as_json=as_json)
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return EXIT_INTERRUPTED
    except _UsageError as error:
        report((Problem(code="usage", message=error.format_message(), remedy="--help tells more"),), as_json=as_json)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # where no command had more to say about its file
        from espalier_runtime.disk import disk_error

        told = disk_error(error, str(error.filename or Path.cwd()))
        report(told.problems, as_json=as_json)
        return told.exit_code
    except Exception as error:
        report((_defect(error),), as_json=as_json)
        return EspalierError.exit_code


def _defect(error: Exception) -> Problem:
    """Returns the problem for a defect of ours; its traceback goes into a file, because nobody else wants it."""
    with tempfile.NamedTemporaryFile("w", prefix="espalier-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Problem(code="internal", message=message, file=log.name, remedy="a defect: report it with this file")


def report(problems: tuple[Problem, ...], *, as_json: bool) -> None:
    """Prints errors: `{"errors": [...]}` on standard output with --json, else a line each on standard error."""
    if as_json:
        print(json.dumps({"errors": [problem.to_json() for problem in problems]}, default=_text))
        return
    print_problems(problems)


def _text(value: Any) -> str:
    return str(value)


if __name__ == "__main__":
    main()
