"""Children that end with their parent: the watch on standard input, whose other end the parent holds.

The kernel closes it with the parent, even after `kill -9`.
"""

from __future__ import annotations

import os
import threading

from espalier_sdk.errors import EXIT_INTERRUPTED

PARENT_VARIABLE = "ESPALIER_PARENT_WATCH"


def watch_parent() -> None:
    """Ends this process when the one that started it dies, where that one asked for it in the environment."""
    if os.environ.pop(PARENT_VARIABLE, None):
        threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_INTERRUPTED)
