"""What a person sees of a training, and how they stop it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
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


class Progress:
    """A live line with rate and time left, or rows to a callback, or silence."""

    def __init__(self, name: str, steps: int, mode: bool | Callable[[dict[str, Any]], None]) -> None:
        self.name, self.steps, self.mode = name, steps, mode
        self.bar: Any = None

    def begin(self, step: int) -> None:
        self.first, self.clock = step, time.monotonic()
        if self.mode is not True:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description:<10}"), BarColumn(24), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
            refresh_per_second=4,
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=self.steps, completed=step, rate="", loss="")

    def rate(self, step: int) -> float:
        """Steps per second since the start of this process's share."""
        return (step - self.first) / max(time.monotonic() - self.clock, 1e-9)

    def tick(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=step, rate=f"{self.rate(step):.1f} steps/s")

    def row(self, row: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.update(self.task, loss=f"val {row['val_loss']:.4f}")
        elif callable(self.mode):
            rate = self.rate(row["step"])
            left = (self.steps - row["step"]) / rate if rate > 0 else float("nan")
            self.mode({"name": self.name, "steps": self.steps, "steps_per_s": rate, "seconds_left": left, **row})

    def end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
