"""What a person sees of long work: one line, written over in place, in a terminal and in a notebook alike.

Where output goes to a file nothing is written over: the last state alone is printed.  Imports nothing of the package.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

EVERY = 0.2
"""Seconds between two states of a line."""
WIDTH = 100


def in_notebook() -> bool:
    return "ipykernel" in sys.modules


def span(seconds: float) -> str:
    """ "8 s", "3 min", "1 h 20 min": a time to wait, roughly."""
    if not math.isfinite(seconds):
        return "an unknown time"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Line:
    """One line on a terminal; a carriage return writes the next state over it, which notebooks know as well."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # what a notebook shows of stderr is red
        self.stream = stream or (sys.stdout if in_notebook() else sys.stderr)
        self.live = in_notebook() or self.stream.isatty()
        self._last, self._shown, self._text = -math.inf, 0, ""

    def show(self, text: str) -> None:
        """``text`` in place of what stands there, unless the last change was a moment ago."""
        self._text = text
        if self.live and time.monotonic() - self._last >= EVERY:
            self._write()

    def _write(self) -> None:
        text = self._text[:WIDTH]
        self.stream.write("\r" + text.ljust(self._shown))
        self.stream.flush()
        self._last, self._shown = time.monotonic(), len(text)

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self.live and self._shown:
            self.stream.write("\r" + " " * self._shown + "\r")
            self.stream.flush()
            self._shown, self._last = 0, -math.inf

    def end(self) -> None:
        """Leave the last state standing."""
        if self._text:
            if self.live:
                self._write()
            self.stream.write("\n" if self.live else self._text + "\n")
            self.stream.flush()
        self._text, self._shown = "", 0


class Progress:
    """Work in countable steps: a live line with rate and time left (``mode`` True), rows to a function, or silence."""

    def __init__(
        self, name: str, steps: int, mode: bool | Callable[[dict[str, Any]], None], unit: str = "steps"
    ) -> None:
        self.name, self.steps, self.mode, self.unit = name, steps, mode, unit
        self.line: Line | None = None
        self.note = ""

    def begin(self, step: int = 0) -> None:
        self.first, self.clock = step, time.monotonic()
        if self.mode is True:
            self.line = Line()

    def rate(self, step: int) -> float:
        """Steps per second since the start of this process's share."""
        return (step - self.first) / max(time.monotonic() - self.clock, 1e-9)

    def left(self, step: int) -> float:
        """Seconds that the rest will take, at the rate so far."""
        rate = self.rate(step)
        return (self.steps - step) / rate if rate > 0 else math.nan

    def tick(self, step: int, note: str | None = None) -> None:
        """``step`` of the steps are done; ``note`` stands at the end of the line till the next one."""
        self.note = self.note if note is None else note
        if self.line is not None:
            left = f", {span(self.left(step))} left" if self.rate(step) > 0 and step < self.steps else ""
            rate = f"{self.rate(step):.1f} {self.unit}/s{left}"
            self.line.show("  ".join(filter(None, [f"{self.name} {step}/{self.steps}", rate, self.note])))

    def row(self, row: dict[str, Any]) -> None:
        """What was measured at ``row["step"]``."""
        if self.line is not None:
            self.tick(row["step"], f"validation {row['val_loss']:.4f}")
        elif callable(self.mode):
            step = row["step"]
            about = {"steps_per_s": self.rate(step), "seconds_left": self.left(step)}
            self.mode({"name": self.name, "steps": self.steps, **about, **row})

    def end(self) -> None:
        if self.line is not None:
            self.line.end()
            self.line = None


def counter(name: str, mode: bool | Callable[[int, int], None] | None, unit: str) -> Callable[[int, int], None] | None:
    """A function of (done, total) that shows them on a line of its own, which ends with the work; ``mode`` itself where
    that is a function, None where nothing is to be shown."""
    if mode is not True:
        return mode if callable(mode) else None
    progress = Progress(name, 0, True, unit)

    def tell(done: int, total: int) -> None:
        if progress.line is None:
            progress.begin()
        progress.steps = total
        progress.tick(done)
        if done >= total:
            progress.end()

    return tell
