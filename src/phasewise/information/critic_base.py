r"""What estimators with critics share: ``I(A : C | B) = I(A : BC) - I(A : B)``, a network for each of the two.

A critic ``T(x_A, x_B)`` is trained on pairs from one image (joint) and pairs whose A comes from another (marginal).
Scores are arrays (1 + k, M): row 0 joint, the others marginal.  For a fixed critic the estimate of a mutual information
is the mean over images of a *reading*: the score itself, or (where a logarithm stands outside the mean) the estimate
plus its first-order influence.  Readings of the two critics on the same images and noise are subtracted image by image,
and A is shuffled inside groups only, so that the means of groups are independent and their spread is the error.

The critic of ``I(A : BC)`` knows no radius: it is trained once per time.  ``I(A : B)`` with empty B is exactly 0.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from phasewise.errors import PhasewiseError
from phasewise.fit import Snapshot, linear_decay, minimise
from phasewise.information.base import Cell, CMIEstimator, Say, whole
from phasewise.information.critic_network import CriticNetwork, Pairs, group_sizes, make_pairs
from phasewise.information.problem import Problem
from phasewise.results import Estimate
from phasewise.seeding import Purpose, generator, mix
from phasewise.work import Work

Loss = Callable[[Tensor], Tensor]
WEIGHT_DECAY = 1e-4
DRAWS = 4
TRIED_STEPS = 4


class CriticEstimator(CMIEstimator):
    """What all estimators with critics share.

    Options:
        steps: AdamW steps of each critic.  batch: images a step.
        lr: learning rate.  decay: let it fall linearly to 0 (off: constant).
        width, hidden: channels of the convolution, units of the hidden layer.
        dropout: rates after the convolution and after the hidden layer (the paper's 0.1 and 0.3).
        negatives: shuffles of A for each batch.
        refresh_noise: draw the noise of an image anew each time it is seen; off: one draw per image, kept.
        hold_out: score images that were not trained on, with fresh noise; off: score the training images.
        train_fraction: share of the images to train on (with ``hold_out``; else all are).
        calibration: share of the training images kept apart, others in each refit, to fit one factor in [0, 2] that
            scales the critic, so that an over-fitted one is turned down; 0 (and no ``hold_out``) leaves it as trained.
        refits: trainings on the same images from other initial weights, batches and calibration images, averaged; their
            spread enters the standard error.
        device: where the networks live.

    Raises :class:`PhasewiseError` for options out of range, too few images, and a loss that is not finite.
    """

    def __init__(
        self,
        *,
        steps: int = 5000,
        batch: int = 100,
        lr: float = 1e-3,
        decay: bool = True,
        width: int = 32,
        hidden: int = 256,
        dropout: tuple[float, float] = (0.0, 0.0),
        negatives: int = 1,
        refresh_noise: bool = True,
        hold_out: bool = True,
        train_fraction: float = 0.5,
        calibration: float = 0.1,
        refits: int = 2,
        device: str = "cpu",
    ) -> None:
        self.steps, self.batch = self._whole("steps", steps), self._whole("batch", batch)
        self.width, self.hidden = self._whole("width", width), self._whole("hidden", hidden)
        self.negatives, self.refits = self._whole("negatives", negatives), self._whole("refits", refits)
        if not lr > 0:
            raise PhasewiseError(f"{self.name}: lr must be a number > 0, got {lr!r}")
        if not 0 < train_fraction < 1 or not 0 <= calibration < 1 or not all(0 <= p < 1 for p in dropout):
            raise PhasewiseError(
                f"{self.name}: train_fraction must lie in (0, 1), calibration and dropout in [0, 1); "
                f"got {train_fraction}, {calibration} and {dropout}"
            )
        if self.negatives >= self.batch:
            raise PhasewiseError(
                f"{self.name}: {self.negatives} negatives need a batch of at least {self.negatives + 1}"
            )
        self.lr, self.decay, self.dropout = lr, decay, (float(dropout[0]), float(dropout[1]))
        self.refresh_noise, self.hold_out = refresh_noise, hold_out
        self.train_fraction, self.calibration, self.device = train_fraction, calibration, device

    def _whole(self, option: str, count: int) -> int:
        return whole(f"{self.name}: {option}", count, 1)

    @abstractmethod
    def make_loss(self) -> Loss:
        """A fresh training loss: scores (1 + k, M) -> scalar; it may remember earlier batches."""

    @abstractmethod
    def read(self, scores: Tensor) -> Tensor:
        """Readings (M,) of scores (1 + k, M); their mean is the estimate of the mutual information in nats."""

    def held_out(self, n: int) -> int:
        return n - round(n * self.train_fraction) if self.hold_out else n

    def estimate(
        self, problem: Problem, cells: Sequence[Cell], folder: Path | None = None, say: Say = lambda _: None
    ) -> Iterator[tuple[Cell, Estimate]]:
        parts = self._split(problem)
        for i in sorted({i for i, _ in cells}):
            radii = [j for k, j in cells if k == i]
            t = problem.times[i]
            at = f"t = {t:g}, r = {problem.radii[radii[0]]} (the critic of A with B and C)"
            say(f"{self.name}: t = {t:g}, A with B and C")
            keep = _Keep(folder, t)
            everything = self._readings(problem, i, None, parts, at, keep)
            for j in radii:
                say(f"{self.name}: t = {t:g}, r = {problem.radii[j]}")
                near = self._readings(problem, i, problem.radii[j], parts, f"t = {t:g}, r = {problem.radii[j]}", keep)
                yield (i, j), self._summary(everything - near, problem.seed)
                keep.forget(problem.radii[j])
            keep.forget(None)

    def work(self, problem: Problem, n: int) -> list[Work] | None:
        """Of each critic, one for a time and radius and one more for a time: its steps, and its scores."""
        pairs = make_pairs(problem, 0, None, self.negatives, self.device)
        shown = sum(bool(problem.geometry.inside(r).any()) for r in (*problem.radii, None))
        critics, images = self.refits * len(problem.times) * shown, torch.arange(len(problem.images))
        few = copy.copy(self)
        few.steps = min(TRIED_STEPS, self.steps)
        critic = few._train(pairs, images, None, problem.seed, "a trial")
        learn = n if not self.hold_out else n - self.held_out(n)
        scored = self.held_out(n) + self._kept(learn)
        draws = DRAWS if self.hold_out or self.refresh_noise else 1
        return [
            Work(lambda: few._train(pairs, images, None, problem.seed, "a trial"), critics * self.steps / few.steps),
            Work(
                lambda: self._score(pairs, critic, images, problem.seed), critics * scored / len(images) * draws / DRAWS
            ),
        ]

    def _split(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(training, test) images by number, in random order; the same images where nothing is held out."""
        n = len(problem.images)
        order = torch.randperm(n, generator=generator(problem.seed, Purpose.CRITIC_SPLIT))
        held_out = self.held_out(n)
        self.check_number(n)
        return (order[held_out:], order[:held_out]) if self.hold_out else (order, order)

    def check_number(self, n: int) -> None:
        test = self.held_out(n)
        learn = n - test if self.hold_out else n
        kept, need = self._kept(learn), self.negatives + 1
        if min(learn - kept, test) < 2 * need or 0 < kept < need:
            raise PhasewiseError(
                f"{self.name}: {n} images leave {learn - kept} to train, {kept} to calibrate and {test} to "
                f"score; give more images, or fewer negatives than {self.negatives}"
            )

    def _kept(self, n: int) -> int:
        """How many of ``n`` training images are kept apart for calibration."""
        return round(n * self.calibration) if self.hold_out else 0

    def _readings(
        self, problem: Problem, time: int, radius: int | None, parts: tuple[Tensor, Tensor], at: str,
        keep: _Keep | None = None,
    ) -> Tensor:  # fmt: skip
        """(refits, n) readings of ``I(A : B_radius)`` (None: of ``I(A : BC)``), averaged over draws of noise."""
        pairs = make_pairs(problem, time, radius, self.negatives, self.device)
        key = round(problem.times[time] * 1e9)
        out = torch.zeros(self.refits, len(parts[1]), dtype=torch.float64)
        for refit in range(self.refits if bool(pairs.context.any()) else 0):
            scoring = mix(problem.seed, Purpose.CRITIC_SCORING, key)  # the same noise for every refit and radius
            file = None if keep is None else keep.file(radius, refit)
            out[refit] = self._refit(pairs, parts, mix(problem.seed, key, refit), scoring, at, file)
        return out

    def _refit(
        self, pairs: Pairs, parts: tuple[Tensor, Tensor], seed: int, scoring: int, at: str, file: Path | None
    ) -> Tensor:
        """(n,) readings of one training: its choices come from ``seed``, the noise it is scored on from ``scoring``."""
        learn, test = parts
        count = self._kept(len(learn))
        if count:
            learn = learn[torch.randperm(len(learn), generator=generator(seed, Purpose.CRITIC_SPLIT))]
        kept, train = learn.tensor_split([count])
        frozen = None
        if not self.refresh_noise:
            frozen = torch.randn(len(train), pairs.size, generator=generator(seed, Purpose.CRITIC_FROZEN_NOISE))
        critic = self._train(pairs, train, frozen, seed, at, file)
        scores = self._score(pairs, critic, test, scoring, None if self.hold_out else frozen)
        if count:
            calibration = self._score(pairs, critic, kept, mix(seed, Purpose.CRITIC_CALIBRATION))
            scores = scores * self._calibrate(calibration)
        readings = self.read(scores)
        if not bool(torch.isfinite(readings).all()):
            raise PhasewiseError(f"{self.name} at {at}: the scores are not finite; {self._remedy()}")
        return readings.reshape(-1, len(test)).mean(0)

    def _train(
        self, pairs: Pairs, train: Tensor, frozen: Tensor | None, seed: int, at: str, file: Path | None = None
    ) -> CriticNetwork:
        """A critic, trained on the images numbered ``train``, with their ``frozen`` noise (len(train), D) or fresh;
        kept in ``file`` meanwhile."""
        rng = generator(seed, Purpose.CRITIC_BATCHES)
        loss = self.make_loss()
        snapshot = None if file is None else Snapshot(file, (rng,), partial(_memory, loss), partial(_remember, loss))

        def failed(step: int, _: float) -> str:
            return f"{self.name} at {at}: the loss is not finite at step {step}; {self._remedy()}"

        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mix(seed, Purpose.CRITIC_INIT))
            critic = CriticNetwork(pairs.shape, self.width, self.hidden, self.dropout).to(self.device)

            def loss_of() -> Tensor:
                chosen = torch.randperm(len(train), generator=rng)[: self.batch]
                noise = torch.randn(len(chosen), pairs.size, generator=rng) if frozen is None else frozen[chosen]
                return loss(pairs.scores(critic, train[chosen], noise))

            minimise(
                critic, loss_of, self.steps, self._settings, weight_decay=WEIGHT_DECAY, fused=True, failed=failed,
                snapshot=snapshot,
            )  # fmt: skip
        return critic

    def _settings(self, step: int) -> dict[str, float]:
        return {"lr": linear_decay(self.lr, step, self.steps) if self.decay else self.lr}

    def _score(
        self, pairs: Pairs, critic: CriticNetwork, images: Tensor, seed: int, noise: Tensor | None = None
    ) -> Tensor:
        """Scores (1 + k, draws * n), float64, A shuffled inside groups; ``noise`` (n, D): that one draw."""
        rng = generator(seed)
        sizes = group_sizes(len(images), self.batch, self.negatives)
        draws = []
        with torch.no_grad():
            for _ in range(DRAWS if noise is None else 1):
                z = torch.randn(len(images), pairs.size, generator=rng) if noise is None else noise
                groups = zip(images.split(sizes), z.split(sizes), strict=True)
                draws.append(torch.cat([pairs.scores(critic, group, part) for group, part in groups], 1))
        return torch.cat(draws, 1).double().cpu()

    def _calibrate(self, scores: Tensor) -> float:
        """The factor in [0, 2] with the least training loss on ``scores``."""
        return float(minimize_scalar(lambda c: float(self.make_loss()(c * scores)), bounds=(0, 2), method="bounded").x)

    def _summary(self, readings: Tensor, seed: int) -> Estimate:
        """Value and error of differences (refits, n): spread of independent groups, and of refits."""
        n = readings.shape[1]
        groups = torch.stack([g.mean() for g in readings.mean(0).split(group_sizes(n, self.batch, self.negatives))])
        # A is shuffled inside groups only, so their means are independent
        variance = float(groups.var()) / len(groups)
        # refits share the images: their spread is the error of training alone
        if self.refits > 1:
            variance += float(readings.mean(1).var()) / self.refits
        return Estimate(float(readings.mean()), math.sqrt(variance), n, seed=seed)

    def _remedy(self) -> str:
        return f"a lower lr (now {self.lr:g}), fewer steps or a later time may help, or the estimator 'density'"


@dataclass(frozen=True)
class _Keep:
    """Files of the critics of one time, while its cells are not done: in ``folder``, or nowhere."""

    folder: Path | None
    time: float

    def file(self, radius: int | None, refit: int) -> Path | None:
        name = f"{self._stem(radius)}-{refit}.safetensors"
        return None if self.folder is None else self.folder / name

    def forget(self, radius: int | None) -> None:
        for file in self.folder.glob(f"{self._stem(radius)}-*.safetensors") if self.folder is not None else ():
            file.unlink(missing_ok=True)

    def _stem(self, radius: int | None) -> str:
        return f"critic-t{round(self.time * 1e9)}-r{'all' if radius is None else radius}"


def _memory(loss: Loss) -> dict[str, Tensor]:
    """What a loss remembers of earlier batches."""
    state = getattr(loss, "state", None)
    return {} if state is None else {"loss": state}


def _remember(loss: Loss, state: Mapping[str, Tensor]) -> None:
    if "loss" in state:
        loss.state = state["loss"]  # type: ignore[attr-defined]


def cross_entropy(scores: Tensor) -> Tensor:
    """Of telling joint from marginal pairs by the log odds ``scores``; least where they are the log density ratio."""
    return functional.softplus(-scores[0]).mean() + functional.softplus(scores[1:]).mean()
