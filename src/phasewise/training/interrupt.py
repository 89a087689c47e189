"""How a person stops a training."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupt:
    """Ctrl-C asks to stop after the current step, so that a whole step is saved; twice stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        # Python lets only the main thread set a handler
        self.installed = threading.current_thread() is threading.main_thread()
        if self.installed:
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, self.previous)
