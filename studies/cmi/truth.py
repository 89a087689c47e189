"""Models whose CMI is known, and how a map is held against it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from phasewise.results import CMIMap


@dataclass(frozen=True)
class Case:
    """A model with the blocks, radii and times it is asked at; ``truth`` says how exact posteriors are averaged where
    the truth is an average."""

    name: str
    model: Any
    blocks: tuple[int, ...]
    radii: tuple[int, ...]
    times: tuple[float, ...]
    truth: dict[str, int] | None = None

    def exact(self, block: int) -> dict[str, list[list[float]]]:
        """True values and their standard errors, times x radii."""
        cells = [[self.model.cmi(t, r, block, **(self.truth or {})) for r in self.radii] for t in self.times]
        return {
            "truth": [[float(getattr(c, "value", c)) for c in row] for row in cells],
            "truth_stderr": [[float(getattr(c, "stderr", 0.0)) for c in row] for row in cells],
        }


@dataclass(frozen=True)
class Held:
    """A measured map beside the truth."""

    found: CMIMap
    truth: np.ndarray
    truth_error: np.ndarray

    @classmethod
    def of(cls, content: dict[str, Any]) -> Held:
        found = CMIMap.from_dict(content["map"])
        return cls(found, np.array(content["truth"]), np.array(content["truth_stderr"]))

    @property
    def error(self) -> np.ndarray:
        return self.found.value - self.truth

    @property
    def stderr(self) -> np.ndarray:
        return np.hypot(self.found.stderr, self.truth_error)


def pm(value: float, error: float, digits: int = 4) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def estimator_options(words: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE words as options of an estimator; values are JSON."""
    return {name: json.loads(text) for name, text in (word.split("=", 1) for word in words)}
