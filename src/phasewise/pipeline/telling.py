"""What a run says while it works: lines for a log, one line over all stages for a terminal, or JSON lines for programs.

JSON lines are objects with ``time`` (UTC) and ``event``: "stage" (its name, number, of how many, seconds_left), "skip",
"progress" (stage, done from 0 to 1, and what training measured), "done" (stage, seconds), "say" (text) and "result".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from phasewise.display import View, text_table
from phasewise.progress import Line, span
from phasewise.results import plain

QUIET, USUAL, VERBOSE = 0, 1, 2
FORMS = ("text", "json")
BELIEVED = 0.1
"""Share of all the work that an estimate in seconds counts beside what was measured."""
ROWS = 4
"""Lines that a network's training leaves in a log of the usual length."""


class Teller:
    """Called with a line of text, and told of stages and of what is done of them.

    Args:
        write: gets every line that stands.
        level: QUIET says nothing, USUAL a few lines a stage, VERBOSE every row of training.
        form: "text" or "json".  live: keep one line of progress below what was written.
    """

    def __init__(
        self, write: Callable[[str], None] = print, *, level: int = USUAL, form: str = "text", live: bool = False
    ) -> None:
        self.write, self.level, self.form = write, level, form
        self.line = Line() if live and level > QUIET and form == "text" else None
        self.efforts: dict[str, float] = {}
        self.stage, self.number, self.started, self.share = "", 0, 0.0, 0.0
        self.spent, self.worked, self.believed = 0.0, 0.0, 0.0
        self._quarter: dict[str, int] = {}

    @classmethod
    def of(cls, say: Callable[[str], None]) -> Teller:
        """``say`` itself where it is one, else one that gives it the usual lines."""
        return say if isinstance(say, Teller) else cls(say)

    def __call__(self, text: str, level: int = USUAL) -> None:
        if self.form == "json":
            self._event("say", text=text.strip())
        elif level <= self.level:
            self._write(text)
        elif self.line is not None:
            self._show(text.strip())

    def _write(self, text: str) -> None:
        if self.line is not None:
            self.line.clear()
        self.write(text)

    def _event(self, event: str, **about: Any) -> None:
        if self.level > QUIET:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.write(json.dumps(plain({"time": now, "event": event, **about})))

    def result(self, table: View) -> None:
        """What was asked for: shown however quiet."""
        if self.form == "json":
            rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
            self.write(json.dumps(plain({"event": "result", "title": table.title, "rows": rows})))
        else:
            self._write(text_table(table))

    def begin(self, efforts: Mapping[str, float], *, in_seconds: bool = False) -> None:
        """The stages to come in order, and how much work each is: ``in_seconds`` of an idle machine, about, or in a
        unit of one's own."""
        self.efforts, self.spent, self.worked = dict(efforts), 0.0, 0.0
        # seconds are believed as if so much work had been seen to take its time: what is done first is often short
        self.believed = BELIEVED * sum(self.efforts.values()) if in_seconds else 0.0

    def skip(self, stage: str) -> None:
        """``stage`` was done before."""
        self.efforts[stage] = 0.0
        if self.form == "json":
            self._event("skip", stage=stage)
        else:
            self(f"[{stage}] done before")

    def start(self, stage: str) -> None:
        self.stage, self.number, self.started, self.share = (
            stage,
            list(self.efforts).index(stage) + 1,
            time.monotonic(),
            0,
        )
        if self.form == "json":
            self._event("stage", stage=stage, number=self.number, of=len(self.efforts), seconds_left=self.left())
        else:
            self(f"[{stage}] {self._where()}")

    def finish(self) -> None:
        seconds = time.monotonic() - self.started
        self.spent, self.worked = self.spent + seconds, self.worked + self.efforts.get(self.stage, 0.0)
        self.efforts[self.stage] = 0.0
        if self.form == "json":
            self._event("done", stage=self.stage, seconds=round(seconds, 2))

    def end(self) -> None:
        if self.line is not None:
            self.line.clear()

    def left(self) -> float | None:
        """Seconds that this and the later stages will take, at the pace of those finished; None before the first is
        (unless their work is told in seconds), and while a stage that does not say how far it is takes longer than it
        was to take."""
        later = list(self.efforts)[self.number - 1 :]
        if not self.worked + self.believed:
            return None
        pace = (self.spent + self.believed) / (self.worked + self.believed)
        own = pace * self.efforts[self.stage]
        elapsed = time.monotonic() - self.started
        # once some of it is done the stage itself tells how long it takes
        if self.share > 0.05:
            own = elapsed * (1 / self.share - 1)
        elif elapsed > own:
            return None
        else:
            own -= elapsed
        return own + pace * sum(self.efforts[name] for name in later[1:])

    def _where(self) -> str:
        left = self.left()
        return f"stage {self.number} of {len(self.efforts)}" + (f", about {span(left)} left" if left else "")

    def _show(self, text: str) -> None:
        if self.line is not None:
            head = f"[{self.stage}] {self._where()}  " if self.stage else ""
            self.line.show(head + text)

    def part(self, done: float, text: str) -> None:
        """``done`` of the stage's work, from 0 to 1."""
        self.share = done
        self._show(f"{done:.0%}  {text}")

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of a training: name, step, steps, val_loss, steps_per_s, seconds_left."""
        done = row["step"] / row["steps"]
        self.part(done, f"{row['name']} step {row['step']}/{row['steps']}, validation loss {row['val_loss']:.4f}")
        if self.form == "json":
            self._event("progress", stage=self.stage, done=done, **row)
            return
        quarter = int(done * ROWS)
        due, self._quarter[row["name"]] = quarter > self._quarter.get(row["name"], 0), quarter
        if self.line is None:
            pace = f"{row['steps_per_s']:.1f} steps/s, {row['seconds_left']:.0f} s left"
            text = f"  {row['name']} step {row['step']}/{row['steps']}: validation loss {row['val_loss']:.4f}, {pace}"
            self(text, USUAL if due else VERBOSE)
