r"""What estimators with one network for all times and radii share: folds, training, errors over refits, resuming.

The images are cut into ``folds`` parts.  One network is fitted per part, on the others, and scored on its own part, so
every score is on images the network never saw, and every image can be used.  With fold means ``m_k``, their sampling
errors ``e_k``, and ``d_k``, the error of what choosing models on validation images gained
(:mod:`phasewise.information.stacking`),

    value = mean over images,      stderr^2 = ( mean_k e_k^2 * max(1, rho_t) + mean_k d_k^2 ) / folds,
    rho_t = mean over radii of  Var_k(m_k) / mean_k(e_k^2):

the fold means spread by sampling (rho = 1) and by what differs between the refits (the rest).  What all refits miss
alike is in none of these.  Where the CMI is large it shows: of .659 nats a sign shared with the border of 10x10 images
reads .642, of .619 it reads .610, seven and four such errors low.  So a map adds to the error, in square, ``missed``
times what the value has above .3 nats (:mod:`phasewise.information.limits`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save
from torch import Tensor

from phasewise import seeding
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_bytes
from phasewise.information.base import Cell, CMIEstimator, Say, whole
from phasewise.information.conditional import TrunkShape
from phasewise.information.folds import Fold, RandomBatch, train_network
from phasewise.information.inputs import Inputs
from phasewise.information.linear import MATRICES, chain_work, untold_chain
from phasewise.information.problem import Problem
from phasewise.information.readings import CHUNK, Readings
from phasewise.information.stacking import NestedStack, Rule
from phasewise.memory import AT_ONCE
from phasewise.results import Estimate
from phasewise.seeding import FoldPurpose, Purpose
from phasewise.tensors import check_sizes, read_tensors, sizes_of
from phasewise.work import Work

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 3000
VALIDATION_DRAWS = 2
LEAST_STEPS = 600
NEAR = 5
TRIED_STEPS = 4
"""Taken at a time to tell how long a training takes."""


class AmortisedEstimator(CMIEstimator):
    """One network for the whole map, refitted ``folds`` times; ``rule`` says how its readings are scored and mixed.

    Options:
        folds: refits, >= 2.  epochs: passes over the training images (each pass meets every image at one time with two
            regions), but at least 600 steps; ``steps``: optimiser steps instead.  batch: images a step.  lr,
            weight_decay, dropout: of AdamW with a cosine decay.  width, depth: of the network.  draws: noise draws of A
            per context when scoring.
        max_scored: most images scored, over all folds.
    """

    rule: ClassVar[Rule]
    missed: ClassVar[float] = 0.05

    def __init__(
        self,
        *,
        folds: int = 3,
        epochs: float = 10,
        steps: int | None = None,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        dropout: float = 0.0,
        width: int = 384,
        depth: int = 1,
        draws: int = 4,
        max_scored: int = 30_000,
    ) -> None:
        if not (epochs > 0 and lr > 0 and weight_decay >= 0 and 0 <= dropout < 1):
            raise PhasewiseError(
                f"epochs and lr must be > 0, weight_decay >= 0, dropout in [0, 1); got {epochs}, {lr}, {weight_decay}, "
                f"{dropout}"
            )
        self.folds, self.batch = whole("folds", folds, 2), whole("batch", batch, 4)
        self.draws = whole("draws", draws, 1)
        self.steps = None if steps is None else whole("steps", steps, 1)
        self.width, self.depth = whole("width", width, 1), whole("depth", depth, 0)
        self.max_scored = whole("max_scored", max_scored, 20)
        self.epochs, self.lr = float(epochs), float(lr)
        self.weight_decay, self.dropout = float(weight_decay), float(dropout)

    @abstractmethod
    def readings(self, inputs: Inputs, shape: TrunkShape, seed: int) -> Readings:
        """A fresh network beside the Gaussian model."""

    @abstractmethod
    def training_draws(self, entries: int) -> int:
        """Noise draws of A per context while training, for a chain of ``entries``."""

    def held_out(self, n: int) -> int:
        return min(n, self.max_scored)

    def check_number(self, n: int) -> None:
        if self.folds > n // 10:
            raise PhasewiseError(f"{self.folds} folds leave under 10 of {n} images each; take fewer")

    def estimate(
        self, problem: Problem, cells: Sequence[Cell], folder: Path | None = None, say: Say = lambda _: None
    ) -> Iterator[tuple[Cell, Estimate]]:
        self.check_number(len(problem.images))
        read = []
        for fold in self._cut(problem):
            read.append(self._read_fold(problem, fold, folder, say))
            del fold  # its images are copies: there is no room for those of two folds
        value, stderr = combine([r["scores"] for r in read], [r["doubt"] for r in read])
        n = sum(len(r["scores"]) for r in read)
        for i, j in cells:
            yield (i, j), Estimate(float(value[i, j]), float(stderr[i, j]), n, seed=problem.seed)

    def _cut(self, problem: Problem) -> Iterator[Fold]:
        flat = problem.flat
        order = torch.randperm(len(flat), generator=seeding.generator(problem.seed, Purpose.CMI_FOLDS))
        parts = order.tensor_split(self.folds)
        for k, part in enumerate(parts):
            rest = torch.cat([*parts[k + 1 :], *parts[:k]])
            held = max(2, min(VALIDATION_MOST, int(VALIDATION_SHARE * len(rest))))
            scored = part[: max(2, self.max_scored // self.folds)]
            yield Fold(
                k, flat[rest[held:]], flat[rest[:held]], flat[scored], seeding.mix(problem.seed, Purpose.CMI_FOLD, k)
            )

    def _read_fold(self, problem: Problem, fold: Fold, folder: Path | None, say: Say) -> dict[str, Tensor]:
        file = None if folder is None else folder / f"fold-{fold.number}.safetensors"
        if file is not None and file.exists():
            say(f"fold {fold.number + 1} of {self.folds}: done before")
            return _kept_fold(file, (len(fold.scored), len(problem.times), len(problem.radii)))
        read = self.fit_and_read(problem, fold, lambda line: say(f"fold {fold.number + 1} of {self.folds}: {line}"))
        bad = (~torch.isfinite(read["scores"])).any(0).nonzero()
        if len(bad):
            i, j = (int(v) for v in bad[0])
            raise PhasewiseError(
                f"the score of cell t = {problem.times[i]:g}, r = {problem.radii[j]} is not finite; lower lr, or leave "
                "that time out"
            )
        if file is not None:
            write_bytes(file, save({name: value.contiguous() for name, value in read.items()}))
        return read

    def fit_and_read(self, problem: Problem, fold: Fold, say: Say) -> dict[str, Tensor]:
        """Fit on one fold: per-image ``scores`` (n, T, R) with mean I(A:C|B), and ``doubt`` (T, R) of the stacking."""
        inputs = Inputs.fit(problem, fold.train, fold.validation, seeding.generator(fold.seed, FoldPurpose.INPUTS))
        readings = self.readings(inputs, self.trunk_shape(problem, inputs), fold.seed)
        self._train(problem, fold, readings, self.train_steps(len(fold.train)), say)
        rows = [self._read_time(readings, fold, k) for k in range(len(problem.times))]
        return {"scores": torch.stack([r[0] for r in rows], 1), "doubt": torch.stack([r[1] for r in rows])}

    def _train(self, problem: Problem, fold: Fold, readings: Readings, steps: int, say: Say) -> None:
        generator = seeding.generator(fold.seed, FoldPurpose.TRAINING)
        draws = self.training_draws(len(readings.inputs.a))

        def loss_of(clean: Tensor, time: int, regions: Tensor) -> Tensor:
            return -self.rule.score(readings(clean, time, regions, draws, generator)[..., 0]).mean()

        batch = RandomBatch(problem, fold, self.batch, readings.inputs.regions, generator, loss_of)
        train_network(readings.net, batch, steps, self.lr, self.weight_decay, say)

    def work(self, problem: Problem, n: int) -> list[Work] | None:
        """Of each fold: the Gaussian model, the network's steps, and its readings of held-out images at all times."""
        learn = n - n // self.folds
        held = max(2, min(VALIDATION_MOST, int(VALIDATION_SHARE * learn)))
        flat = problem.flat
        fold = Fold(0, flat, flat, flat, problem.seed)
        inputs = Inputs.around(problem, flat, untold_chain(problem))
        readings = self.readings(inputs, self.trunk_shape(problem, inputs), fold.seed)
        generator = seeding.generator(fold.seed, FoldPurpose.SCORING)

        @torch.inference_mode()
        def read() -> None:
            readings.everything(flat[:CHUNK], 0, self.draws, generator)

        # a reading costs what it costs by its draws; of validation images there are fewer
        seen = self.held_out(n) // self.folds + held * VALIDATION_DRAWS / self.draws
        pieces = [
            *chain_work(problem, learn - held),
            Work(
                lambda: self._train(problem, fold, readings, TRIED_STEPS, lambda _: None),
                self.train_steps(learn - held) / TRIED_STEPS,
            ),
            Work(read, len(problem.times) * seen / min(CHUNK, len(flat))),
        ]
        return [Work(piece.once, self.folds * piece.times) for piece in pieces]

    @torch.inference_mode()
    def _read_time(self, readings: Readings, fold: Fold, time: int) -> tuple[Tensor, Tensor]:
        """(n, R) per-image scores and (R,) doubt at one time, models chosen on the validation images."""
        choosing = seeding.generator(fold.seed, FoldPurpose.CHOOSING, time)
        held = readings.everything(fold.validation, time, VALIDATION_DRAWS, choosing)
        stack = NestedStack(held, readings.inputs.order(), self.rule)
        generator = seeding.generator(fold.seed, FoldPurpose.SCORING, time)
        out = []
        for clean in fold.scored.split(CHUNK):
            values = readings.everything(clean, time, self.draws, generator, learned=stack.uses(0))
            score = self.rule.score(stack(values)).sum(2).mean(1)
            out.append(score[:, -1:] - score[:, :-1])
        return torch.cat(out), stack.doubt[:-1].hypot(stack.doubt[-1:])

    def bytes(self, size: int, n: int) -> float:
        """Images, those of a fold, and sums in float64 or what :mod:`phasewise.information.linear` holds at a time."""
        sums = 16.0 * min(size * n, AT_ONCE)
        return 4.0 * size * n * (2 - 1 / self.folds) + max(sums, 8.0 * size**2 * MATRICES)

    def trunk_shape(self, problem: Problem, inputs: Inputs) -> TrunkShape:
        near = (problem.geometry.distance <= NEAR).expand(problem.image_shape).reshape(-1).nonzero()
        return TrunkShape(
            problem.image_shape, inputs.conditions.shape[-1], tuple(near.reshape(-1).tolist()), self.width, self.depth,
            self.dropout,
        )  # fmt: skip

    def train_steps(self, n: int) -> int:
        """Optimiser steps for ``n`` training images."""
        return self.steps or max(LEAST_STEPS, round(self.epochs * n / self.batch))


def _kept_fold(file: Path, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Scores (n, T, R) and doubt (T, R) of a fold done before; CheckpointError where the file holds anything else."""
    mend = "delete it: that fold is then fitted again"
    read, wanted = read_tensors(file, mend)[0], {"scores": shape, "doubt": shape[1:]}
    check_sizes(sizes_of(read), wanted, file, "CMI map", mend)
    if not all(v.is_floating_point() and bool(v.isfinite().all()) for v in read.values()) or (read["doubt"] < 0).any():
        raise CheckpointError(f"{file} holds NaN, infinity, whole numbers or errors below 0; {mend}")
    return read


def combine(scores: Sequence[Tensor], doubts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Scores (n_k, T, R) and doubts (T, R) of each fold -> value and standard error (T, R), float64; see the module
    docstring."""
    means = torch.stack([s.double().mean(0) for s in scores])
    # e_k^2, the sampling variance of each fold's mean
    errors = torch.stack([s.double().var(0) / len(s) for s in scores])
    # rho_t: one network serves all radii of a time, so they share what its refits differ by
    inflation = (means.var(0) / errors.mean(0).clamp(min=1e-30)).mean(1, keepdim=True).clamp(min=1)
    doubt = torch.stack([d.double() for d in doubts]).square()
    value = torch.cat(list(scores)).double().mean(0)
    return value, ((errors.mean(0) * inflation + doubt.mean(0)) / len(scores)).sqrt()
