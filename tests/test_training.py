"""Training: it learns, a stopped run resumes to the same bit, and what cannot go on says why."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.special import expit, logit
from scipy.stats import norm
from torch import Tensor

from phasewise.data import ImageData, load_images
from phasewise.denoisers import (
    Denoiser,
    LocalDenoiser,
    NetworkDenoiser,
    UNetDenoiser,
    WienerDenoiser,
    load_denoiser,
    runtime,
    save_denoiser,
)
from phasewise.diagnosis import measure_losses
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, VarianceExplodingPath
from phasewise.results import TrainingRecord
from phasewise.sampling import sample
from phasewise.training import (
    PRESETS,
    TrainPreset,
    TrainSettings,
    batches,
    checkpoint,
    denoising_loss,
    draw_times,
    get_preset,
    learning_rate,
    train,
    train_together,
    trainer,
)

LAW = settings(max_examples=60, deadline=None, derandomize=True)
STEPS = 24


@functools.cache
def digits() -> ImageData:
    return load_images("digits")


@functools.cache
def few() -> ImageData:
    """Noisy stripes, 1x6x5, so few and small that a training takes a fraction of a second."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(90, 1, 1, 5, generator=generator) + 0.1 * torch.randn(90, 1, 6, 5, generator=generator)
    return ImageData("stripes", train=x[:60], validation=x[60:80], test=x[80:])


def network(data: ImageData | None = None, seed: int = 0, **choices: Any) -> LocalDenoiser:
    torch.manual_seed(seed)
    return LocalDenoiser((few() if data is None else data).image_shape, **{"radius": 2, "width": 16, **choices})


def run(out: Path | None = None, seed: int = 0, **choices: Any) -> tuple[LocalDenoiser, TrainingRecord]:
    """A short training on the stripes from weights drawn with ``seed``: 3 steps an epoch, a row a step."""
    denoiser = network(seed=seed)
    record = train(denoiser, few(), **{"steps": STEPS, "batch": 20, "out": out, "progress": False, **choices})
    return denoiser, record


def weights(denoiser: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in denoiser.parameters()])


def no_clock(record: TrainingRecord) -> dict[str, Any]:
    return {k: v for k, v in record.to_dict().items() if k != "seconds"}


@functools.cache
def never_stopped() -> tuple[Tensor, dict[str, Any]]:
    denoiser, record = run()
    return weights(denoiser), no_clock(record)


# --- it learns ------------------------------------------------------------------------------------------------------


def test_a_few_steps_on_digits_beat_the_closed_form_part() -> None:
    denoiser = network(digits(), width=32)
    rows: list[dict[str, Any]] = []
    record = train(denoiser, digits(), steps=60, batch=64, progress=rows.append)
    losses = [row["val_loss"] for row in record.history]
    assert record.history[0]["train_loss"] == pytest.approx(1, abs=0.05)  # F = 0: the residual has unit variance
    assert losses[0] == pytest.approx(1, abs=0.02)
    assert record.val_loss < 0.87
    assert losses[-1] < losses[9] < losses[0]
    assert record.val_loss == losses[-1]
    assert [row["step"] for row in rows] == list(range(3, 61, 3))
    assert rows[0].items() >= {"name": "LocalDenoiser", "steps": 60, **record.history[0]}.items()
    assert rows[0]["steps_per_s"] > 0
    assert rows[-1]["seconds_left"] == 0
    assert not denoiser.training
    assert torch.isfinite(weights(denoiser)).all()
    assert record.parameters == weights(denoiser).numel()
    assert (record.steps, record.images_seen) == (60, 60 * 64)
    torch.testing.assert_close(denoiser.data_mean.reshape(()), digits().train.mean())


def test_a_unet_trains_on_another_path() -> None:
    torch.manual_seed(0)
    denoiser = UNetDenoiser(few().image_shape, width=8, path=CosinePath())
    record = train(denoiser, few(), steps=40, batch=60, progress=False)
    assert record.val_loss < 0.95 * record.history[0]["val_loss"]  # on the same images and noise


def test_losses_are_kept_by_time_bin() -> None:
    _, record = run()
    assert record.val_by_time.shape == (10,)
    assert np.isfinite(record.val_by_time).all()
    assert np.allclose(record.bin_edges, np.linspace(0, 1, 11))
    assert record.val_by_time.mean() == pytest.approx(record.val_loss, rel=1e-5)  # 20 images, 2 in each bin


def test_a_record_is_written_beside_the_checkpoint(tmp_path: Path) -> None:
    _, record = run(tmp_path, name="r2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "training.json"]
    again = TrainingRecord.load(tmp_path / "training.json")
    assert again.to_dict() == record.to_dict()
    assert record.name == "r2"
    assert record.preset["batch"] == 20
    assert record.seconds > 0


def test_a_tensor_of_images_is_data_too() -> None:
    denoiser = network()
    record = train(denoiser, few().train, steps=2, batch=1000, progress=False)
    assert record.images_seen == 2 * 42  # 70 % of 60; a batch larger than the data is the data


def test_progress_can_be_watched_or_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    run(steps=3, progress=True, name="watched")
    assert "watched 3/3" in capfd.readouterr().err
    run(steps=3, progress=False)
    assert capfd.readouterr() == ("", "")


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LinearPath(), CosinePath(), VarianceExplodingPath(0.05, 5.0)], ids=lambda p: p.name)
def test_losses_are_errors_of_what_the_denoiser_implies(path: Any) -> None:
    denoiser = network(path=path).eval()
    denoiser.fit_moments(few().train)
    with torch.no_grad():
        denoiser.head.weight.normal_(0, 0.3)
        x, z, t = few().test, torch.randn(few().test.shape), torch.linspace(0.1, 0.9, 10)
        x_t = path.add_noise(x, z, t)
        guess = denoiser(x_t, t)
        truth = {f: getattr(path, f)(x_t, x, t) for f in ("velocity_from_x", "eps_from_x")}
        implied = {f: getattr(path, f)(x_t, guess, t) for f in truth}
        error = {f: (implied[f] - truth[f]).square().flatten(1).mean(1) for f in truth}
        in_pixels = (guess - x).square().flatten(1).mean(1)
        paper = error["velocity_from_x"] + error["eps_from_x"] + in_pixels
        torch.testing.assert_close(denoising_loss(denoiser, x, z, t, "paper"), paper, atol=1e-5, rtol=1e-3)
        alpha, sigma, std = path.alpha(t), path.sigma(t), denoiser.data_std.reshape(())
        scale = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)  # c_out^2: the variance the best linear guess leaves
        torch.testing.assert_close(denoising_loss(denoiser, x, z, t), in_pixels / scale, atol=1e-5, rtol=1e-3)


def loss_by_the_raw_output(denoiser: Any, x: Tensor, z: Tensor, t: Tensor, kind: str) -> Tensor:
    """As the loss was taken before the network was called as a whole: from F, without forming D."""
    out, c_out, skip = denoiser.residual(denoiser.path.add_noise(x, z, t), t)
    error = out - (x - skip) / c_out.clamp_min(1e-6)
    if kind == "flow":
        return error.square().flatten(1).mean(1)
    weight = denoiser.path.velocity_gain(t) ** 2 + denoiser.path.gamma(t) + 1
    return (weight * (c_out * error).square().flatten(1).mean(1)).clamp_max(1e6)


@pytest.mark.parametrize("path", [LinearPath(), CosinePath(), VarianceExplodingPath(0.05, 5.0)], ids=lambda p: p.name)
@pytest.mark.parametrize("kind", ["flow", "paper"])
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_the_loss_of_the_whole_call_is_that_of_the_raw_output(path: Any, kind: str, size: float) -> None:
    denoiser = network(path=path).eval()
    denoiser.fit_moments(few().train)
    x = few().train[torch.arange(400) % 60]
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    t = torch.logspace(-3, math.log10(0.9995), 400)
    with torch.no_grad():
        denoiser.head.weight.normal_(0, size, generator=torch.Generator().manual_seed(2))
        plain = loss_by_the_raw_output(denoiser, x, z, t, kind)
        torch.testing.assert_close(denoising_loss(denoiser, x, z, t, kind), plain, rtol=1e-4, atol=0)


def test_training_calls_the_network_as_a_whole_once_a_step() -> None:
    denoiser, calls = network(), []
    denoiser.register_forward_hook(lambda module, args, out: calls.append(module is denoiser))
    train(denoiser, few(), steps=5, batch=20, progress=False)
    assert calls.count(True) == 5  # validation asks the average, a copy


def test_what_a_hook_makes_of_the_answer_is_what_is_learned() -> None:
    """A hook that adds a constant: the training takes it away again."""
    denoiser, plain, x_t = network(), network(), few().test
    handle = denoiser.register_forward_hook(lambda module, args, out: out + 0.1)
    for each in (denoiser, plain):
        train(each, few(), TrainPreset(lr=6e-3, ema=0.9), steps=80, batch=60, progress=False)
    handle.remove()
    with torch.no_grad():
        shift = float((denoiser(x_t, 0.5) - plain(x_t, 0.5)).mean())
    assert shift == pytest.approx(-0.1, abs=0.03)


# --- stopped and resumed --------------------------------------------------------------------------------------------


def interrupt(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def at_step(step: int, do: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def callback(row: dict[str, Any]) -> None:
        if row["step"] == step:
            do()

    return callback


def resumed_is_never_stopped(out: Path, **choices: Any) -> None:
    rows: list[dict[str, Any]] = []
    denoiser, record = run(
        out, seed=7, progress=rows.append, **choices
    )  # other initial weights: the checkpoint's count
    expected, written = never_stopped()
    assert torch.equal(weights(denoiser), expected)
    assert no_clock(record) == written
    assert len(rows) < STEPS  # it did not start again


@pytest.mark.parametrize("step", [1, 10, STEPS - 1, STEPS])
def test_after_ctrl_c_a_run_resumes_to_the_same_bit(tmp_path: Path, step: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at_step(step, interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    resumed_is_never_stopped(tmp_path)


def test_after_a_kill_a_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    def killed() -> None:
        raise SystemExit(137)  # nothing is saved at this moment; checkpoints of the steps before are there

    for step in (8, 15):
        with pytest.raises(SystemExit):
            run(tmp_path, progress=at_step(step, killed), checkpoint_every=0.0)
    resumed_is_never_stopped(tmp_path)


def test_a_run_stopped_between_two_rows_keeps_the_running_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(network(), few(), steps=63, batch=20, progress=False)  # a row every 3 steps
    calls: list[int] = []

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 32:
            interrupt()
        return draw_times(*args)

    monkeypatch.setattr(batches, "draw_times", counted)
    with pytest.raises(KeyboardInterrupt):
        train(network(), few(), steps=63, batch=20, progress=False, out=tmp_path)
    assert len(calls) == 32
    record = train(network(), few(), steps=63, batch=20, progress=False, out=tmp_path)
    assert len(calls) == 63
    assert no_clock(record) == no_clock(whole)
    assert record.seconds > 0


def test_a_second_ctrl_c_stops_at_once_and_the_first_checkpoint_stands(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at_step(5, interrupt))
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=at_step(9, lambda: interrupt(2)))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content
    resumed_is_never_stopped(tmp_path)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first, record = run(tmp_path)
    rows: list[dict[str, Any]] = []
    second, again = run(tmp_path, seed=7, progress=rows.append)
    assert rows == []
    assert torch.equal(weights(first), weights(second))
    assert no_clock(again) == no_clock(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 30}, r"preset\.steps: 24 there, 30 here"),
        ({"batch": 10}, r"preset\.batch: 20 there, 10 here"),
        ({"preset": "paper"}, r"preset\.decay: cosine there, constant here"),
        ({"preset": TrainPreset(lr=0.1)}, r"preset\.lr: 0\.0015 there, 0\.1 here"),
        ({"span": (0.2, 0.5)}, r"span: \[0\.0, 1\.0\] there, \[0\.2, 0\.5\] here"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_difference(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run(tmp_path)
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=rf"belongs to another training \({message}\); use another folder"):
        run(tmp_path, **change)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content


def test_a_checkpoint_of_another_network_seed_or_data_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    options: dict[str, Any] = {"steps": STEPS, "batch": 20, "out": tmp_path, "progress": False}
    with pytest.raises(CheckpointError, match=r"config\.width: 16 there, 24 here"):
        train(network(width=24), few(), **options)
    with pytest.raises(CheckpointError, match=r"seed: 0 there, 1 here"):
        train(network(), few(), seed=1, **options)
    other = replace(few(), validation=few().test)
    with pytest.raises(CheckpointError, match=rf"data: {few().fingerprint} there, {other.fingerprint} here"):
        train(network(), other, **options)
    with pytest.raises(CheckpointError, match="class: LocalDenoiser there, UNetDenoiser here"):
        train(UNetDenoiser(few().image_shape, width=8), few(), **options)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is corrupt"):
        run(tmp_path)


def test_a_checkpoint_of_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_FORMAT", "0")
    run(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has checkpoint format '0', not 1"):
        run(tmp_path)


# --- randomness -----------------------------------------------------------------------------------------------------


def test_a_training_depends_on_its_seed_and_on_nothing_else() -> None:
    denoiser = network()
    torch.manual_seed(123)
    train(denoiser, few(), steps=STEPS, batch=20, progress=False)
    assert torch.equal(weights(denoiser), never_stopped()[0])
    train(other := network(), few(), steps=STEPS, batch=20, seed=1, progress=False)
    assert not torch.equal(weights(other), never_stopped()[0])


def test_every_image_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def watched(denoiser: Any, x: Tensor, *args: Any) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(x)
        return denoising_loss(denoiser, x, *args)

    monkeypatch.setattr(trainer, "denoising_loss", watched)
    train(network(), few(), epochs=2, batch=20, progress=False)
    assert len(seen) == 6
    for epoch in (seen[:3], seen[3:]):
        assert torch.equal(torch.cat(epoch).sum((1, 2, 3)).sort()[0], few().train.sum((1, 2, 3)).sort()[0])
    assert not torch.equal(seen[0], seen[3])


# --- under a condition ----------------------------------------------------------------------------------------------

HALVES = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]).reshape(2, 1, 1, 4).expand(2, 1, 4, 4)


@functools.cache
def halves() -> ImageData:
    """Two classes, 1x4x4: the left half bright, or the right, under a little noise."""
    labels = torch.arange(160) % 2
    x = HALVES[labels] + 0.1 * torch.randn(160, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    parts = {"train": slice(0, 100), "validation": slice(100, 130), "test": slice(130, 160)}
    fields = {name: x[part] for name, part in parts.items()}
    fields |= {f"labels_{name}": labels[part] for name, part in parts.items()}
    return ImageData("halves", pixel_range=(-1, 2), **fields)  # type: ignore[arg-type]


def told_network(kind: str, classes: int | None = 2) -> NetworkDenoiser:
    torch.manual_seed(0)
    if kind == "unet":
        return UNetDenoiser((1, 4, 4), width=8, multipliers=(1,), classes=classes)
    return LocalDenoiser((1, 4, 4), 1, width=16, classes=classes)


@pytest.mark.parametrize("kind", ["local", "unet"])
def test_a_network_told_the_class_learns_what_it_looks_like(kind: str, tmp_path: Path) -> None:
    told, plain = told_network(kind), told_network(kind, None)
    options: dict[str, Any] = {"steps": 200 if kind == "local" else 40, "batch": 50, "progress": False}
    quick = TrainPreset(lr=6e-3, ema=0.98)
    record = train(told, halves(), quick, cond="labels", **options)
    unconditional = train(plain, halves(), quick, **options)
    late = slice(7, None)  # where noise hides the class from who is not told
    assert record.val_by_time[late].mean() < 0.5 * unconditional.val_by_time[late].mean()
    assert record.val_loss < unconditional.val_loss
    for label in (0, 1):
        images = sample(told.given(label), n=6, steps=8, seed=3)
        own, other = ((images - HALVES[k]).abs().mean((1, 2, 3)) for k in (label, 1 - label))
        assert (own < 0.5 * other).all()
    labels = torch.tensor([0, 1, 1, 0, 1])
    whole = sample(told, n=5, steps=8, cond=labels, batch=5)
    assert (sample(told, n=5, steps=8, cond=labels, batch=2) - whole).abs().max() < 1e-4
    again = load_denoiser(save_denoiser(told, tmp_path))
    assert torch.equal(sample(again, n=5, steps=8, cond=labels, batch=5), whole)
    table = measure_losses({"global": told}, halves(), (0.9,), cond="labels")
    wrong = measure_losses({"global": told}, halves(), (0.9,), cond=1 - halves().labels_test)  # type: ignore[operator]
    assert wrong.loss[0, 0] > 5 * table.loss[0, 0]


def test_rows_follow_their_images_however_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label of every image that is its own mean: in every batch, held out or not, the two must agree."""
    seen: list[Tensor] = []

    def watched(denoiser: Any, x: Tensor, z: Tensor, t: Tensor, kind: str, target: Any, cond: Any) -> Tensor:
        seen.append(((x.mean((1, 2, 3)) > 0.5).long() - cond).abs().max())
        assert len(x) == len(cond)
        return denoising_loss(denoiser, x, z, t, kind, target, cond)

    monkeypatch.setattr(trainer, "denoising_loss", watched)
    levels = (torch.arange(90) * 7 % 10 < 5).long()
    x = levels.reshape(-1, 1, 1, 1) + 0.2 * few().train.repeat(2, 1, 1, 1)[:90] - 0.1
    data = ImageData("levels", x[:60], x[60:80], x[80:], levels[:60], levels[60:80], levels[80:], (-2.0, 2.0))
    for given_as, cond in ((data, "labels"), (data, levels[:80]), (x, levels)):
        seen.clear()
        train(network(classes=2), given_as, steps=4, batch=16, cond=cond, progress=False)  # type: ignore[arg-type]
        assert len(seen) == 4 + 4 + 1  # steps, validations, the last one
        assert not any(bool(far) for far in seen)
    train(network(classes=2), data, steps=1, cond=1 - levels[:80], progress=False)
    assert any(bool(far) for far in seen)  # the check can fail


def test_who_takes_no_condition_learns_the_same_beside_one_who_does() -> None:
    plain, told = network(), network(classes=2)
    labels = torch.arange(80) % 2
    options: dict[str, Any] = {"steps": STEPS, "batch": 20, "progress": False}
    train_together({"plain": plain, "told": told}, few(), cond=labels, **options)
    assert torch.equal(weights(plain), never_stopped()[0])
    train(alone := network(classes=2), few(), cond=labels, **options)
    assert torch.equal(weights(told), weights(alone))


class Level(Denoiser):
    """A teacher that answers with what it is told."""

    takes_condition = True

    def forward(self, x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
        assert cond is not None
        return cond.to(x_t).reshape(-1, 1, 1, 1).expand_as(x_t)


def test_a_teacher_is_told_the_condition_too() -> None:
    batch = batches.Batches(
        few().train, 20, seed=0, times="mixed", span=(0.0, 1.0), path=LinearPath(), teacher=Level((1, 6, 5)),
        cond=torch.arange(60),
    ).draw(1)  # fmt: skip
    assert batch.cond is not None
    assert torch.equal(batch.x, few().train[batch.cond])
    assert torch.equal(batch.target[:, 0, 0, 0], batch.cond.float())
    run(steps=1, teacher=Level((1, 6, 5)), cond=torch.arange(80))
    run(steps=1, teacher=Level((1, 6, 5)).given(1))


def test_a_checkpoint_under_another_condition_is_refused(tmp_path: Path) -> None:
    labels = torch.arange(80) % 2
    options: dict[str, Any] = {"steps": 3, "batch": 20, "progress": False, "out": tmp_path}
    train(network(classes=2), few(), cond=labels, **options)
    with pytest.raises(CheckpointError, match="cond: "):
        train(network(classes=2), few(), cond=1 - labels, **options)
    identity = trainer._told(network(), batches.Batches(
        few().train, 20, seed=0, times="mixed", span=(0.0, 1.0), path=LinearPath(), cond=labels[:60]
    ))  # fmt: skip
    assert identity == {}  # who is told nothing has the identity it always had


def test_a_condition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(PhasewiseError, match="cond is given, but LocalDenoiser takes no condition"):
        run(cond=torch.arange(80))
    with pytest.raises(PhasewiseError, match="cond has 60 rows for 80 images"):
        train(network(classes=2), few(), cond=torch.arange(60), progress=False)
    with pytest.raises(PhasewiseError, match="stripes has no train labels"):
        train(network(classes=2), few(), cond="labels", progress=False)
    with pytest.raises(PhasewiseError, match="needs a class label of each image"):
        train(network(classes=2), few(), steps=1, progress=False)


def test_hidden_labels_are_told_as_the_last_one() -> None:
    labels = torch.arange(80) % 2
    told = batches.Batches(
        few().train, 20, seed=0, times="mixed", span=(0.0, 1.0), path=LinearPath(), cond=labels[:60], hidden=0.3, null=2
    )  # fmt: skip
    drawn = [told.draw(step) for step in range(60)]
    shares = torch.cat([batch.cond for batch in drawn]).bincount(minlength=3) / 1200
    assert shares.tolist() == pytest.approx([0.35, 0.35, 0.3], abs=0.04)
    whole = batches.Batches(
        few().train, 20, seed=0, times="mixed", span=(0.0, 1.0), path=LinearPath(), cond=labels[:60]
    )  # fmt: skip
    for step, batch in enumerate(drawn[:3]):  # nothing else changes
        same = whole.draw(step)
        assert torch.equal(same.x, batch.x)
        assert torch.equal(same.z, batch.z)
        assert torch.equal(same.cond, torch.where(batch.cond == 2, same.cond, batch.cond))


def test_labels_are_hidden_only_from_networks_with_one_to_spare() -> None:
    labels = torch.arange(80) % 2
    hiding = get_preset("default", hidden=0.1, steps=1, batch=20)
    quiet: dict[str, Any] = {"preset": hiding, "progress": False}
    train(network(classes=3), few(), cond=labels, **quiet)
    with pytest.raises(PhasewiseError, match="no label to spare: of 2 labels the last stands for none"):
        train(network(classes=2), few(), cond=labels, **quiet)
    with pytest.raises(PhasewiseError, match="hides class labels: give networks, and a teacher, of one number"):
        train(network(), few(), **quiet)
    with pytest.raises(PhasewiseError, match="give networks, and a teacher, of one number of classes"):
        train(network(classes=3), few(), cond=labels, teacher=network(classes=2), **quiet)
    assert "hidden" not in trainer._preset(get_preset("default"))
    assert trainer._preset(hiding)["hidden"] == 0.1


def test_both_trainings_show_the_same_settings() -> None:
    one, several = (list(inspect.signature(f).parameters) for f in (train, train_together))
    fields = [f.name for f in dataclasses.fields(TrainSettings)]
    assert one == ["denoiser", "data", "preset", "name", *fields]
    assert several == ["denoisers", "data", "preset", *fields]
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        run(epoch=3)


# --- several networks in one pass, and a teacher --------------------------------------------------------------------


class Constant(Denoiser):
    """The same image whatever it is shown."""

    def __init__(self, image: Tensor, path: NoisePath | None = None) -> None:
        super().__init__(tuple(image.shape), path)  # type: ignore[arg-type]
        self.register_buffer("image", image)

    def forward(self, x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
        return self.get_buffer("image").expand_as(x_t)


def pair() -> dict[str, LocalDenoiser]:
    return {"two": network(), "one": network(seed=1, radius=1)}


def test_networks_trained_together_learn_what_each_learns_alone() -> None:
    together = pair()
    records = train_together(together, few(), steps=STEPS, batch=20, progress=False)
    for name, alone in pair().items():
        record = train(alone, few(), steps=STEPS, batch=20, progress=False, name=name)
        assert torch.equal(weights(alone), weights(together[name])), name
        assert no_clock(record) == no_clock(records[name])


@pytest.mark.parametrize("lost", [None, "one"])
def test_networks_trained_together_resume_even_where_one_checkpoint_is_behind(tmp_path: Path, lost: str | None) -> None:
    def stop(row: dict[str, Any]) -> None:
        if (row["name"], row["step"]) == ("two", 7):
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        train_together(pair(), few(), steps=STEPS, batch=20, out=tmp_path, progress=stop)
    if lost:
        (tmp_path / lost / "checkpoint.safetensors").unlink()
    resumed = pair()
    records = train_together(resumed, few(), steps=STEPS, batch=20, out=tmp_path, progress=False)
    straight = pair()
    expected = train_together(straight, few(), steps=STEPS, batch=20, progress=False)
    for name in resumed:
        assert torch.equal(weights(resumed[name]), weights(straight[name])), name
        assert no_clock(records[name]) == no_clock(expected[name])


def test_the_progress_of_several_names_each() -> None:
    rows: list[dict[str, Any]] = []
    train_together(pair(), few(), steps=2, batch=20, progress=rows.append)
    assert [(row["name"], row["step"]) for row in rows] == [("two", 1), ("one", 1), ("two", 2), ("one", 2)]


def test_a_pupil_learns_its_teacher_and_not_the_images() -> None:
    image = torch.linspace(0, 1, 30).reshape(1, 6, 5)
    pupil, _ = run(steps=400, teacher=Constant(image))
    x_t = few().test + torch.randn(few().test.shape, generator=torch.Generator().manual_seed(0))
    far = (pupil(x_t * 0.5, 0.5) - image).square().mean()
    assert far < 0.1 * (few().test - image).square().mean()


def test_a_teacher_on_another_path_is_translated() -> None:
    own = WienerDenoiser.fit(few().train)
    other = WienerDenoiser.fit(few().train, path=CosinePath())
    (one, _), (two, _) = run(teacher=own), run(teacher=other)
    torch.testing.assert_close(weights(one), weights(two), atol=1e-3, rtol=1e-3)


def test_held_out_losses_of_a_pupil_are_against_the_images() -> None:
    _, record = run(steps=1, teacher=Constant(torch.zeros(1, 6, 5)))
    _, plain = run(steps=1)
    assert record.val_loss == pytest.approx(plain.val_loss, rel=0.01)
    assert record.history[0]["train_loss"] != pytest.approx(plain.history[0]["train_loss"], rel=0.05)


def test_what_cannot_train_together_says_why(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match="nothing to train"):
        train_together({}, few())
    with pytest.raises(PhasewiseError, match="must share one path"):
        train_together({"a": network(), "b": network(path=CosinePath())}, few())
    with pytest.raises(PhasewiseError, match=r"teacher denoises images of shape \(1, 8, 8\), the data has \(1, 6, 5\)"):
        run(teacher=Constant(torch.zeros(1, 8, 8)))
    run(tmp_path, steps=2, teacher=Constant(torch.zeros(1, 6, 5)))
    with pytest.raises(CheckpointError, match="teacher"):
        run(tmp_path, steps=2, teacher=Constant(torch.ones(1, 6, 5)))


def test_an_expert_trains_inside_its_span_only(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[Tensor] = []

    def watched(denoiser: Any, x: Tensor, z: Tensor, t: Tensor, *args: Any) -> Tensor:
        times.append(t)
        return denoising_loss(denoiser, x, z, t, *args)

    monkeypatch.setattr(trainer, "denoising_loss", watched)
    _, record = run(span=(0.3, 0.5), steps=5)
    drawn = torch.cat(times)
    assert drawn.min() >= 0.3
    assert drawn.max() <= 0.5
    assert (record.bin_edges[0], record.bin_edges[-1]) == pytest.approx((0.3, 0.5))
    assert np.isfinite(record.val_by_time).all()


spans = st.tuples(st.floats(0, 0.94), st.floats(0.05, 1)).map(lambda p: (p[0], min(1.0, p[0] + p[1])))
counts = st.integers(1, 80)


def strata(n: int, span: tuple[float, float], inverse: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The edges of n equally likely intervals of a distribution, cut to the times that are trained."""
    return np.clip(inverse(np.arange(n + 1) / n), max(span[0], 1e-3), min(span[1], 0.9995))


@LAW
@given(counts, spans, st.integers(0, 99))
def test_uniform_times_fall_one_into_each_stratum_of_the_span(n: int, span: tuple[float, float], seed: int) -> None:
    t = draw_times(n, "uniform", span, torch.Generator().manual_seed(seed)).sort()[0].numpy()
    edges = strata(n, span, lambda q: span[0] + (span[1] - span[0]) * q)
    assert t.shape == (n,)
    assert (t >= edges[:-1] - 1e-6).all()
    assert (t <= edges[1:] + 1e-6).all()
    if span != (0, 1):  # an expert's times are uniform for "mixed", too
        mixed = draw_times(n, "mixed", span, torch.Generator().manual_seed(seed)).sort()[0].numpy()
        assert np.array_equal(mixed, t)


@LAW
@given(counts, spans, st.integers(0, 99))
def test_logit_normal_times_fall_one_into_each_stratum_of_the_span(
    n: int, span: tuple[float, float], seed: int
) -> None:
    t = draw_times(n, "logit_normal", span, torch.Generator().manual_seed(seed)).sort()[0].numpy()
    low, high = norm.cdf(logit(np.array(span)))
    edges = strata(n, span, lambda q: expit(norm.ppf(low + (high - low) * q)))
    assert (t >= edges[:-1] - 1e-3).all()
    assert (t <= edges[1:] + 1e-3).all()


@LAW
@given(st.integers(1, 40).map(lambda k: 2 * k), st.integers(0, 99))
def test_mixed_times_are_half_uniform_half_logit_normal(n: int, seed: int) -> None:
    t = draw_times(n, "mixed", (0.0, 1.0), torch.Generator().manual_seed(seed)).sort()[0].double().numpy()
    mixture = t / 2 + norm.cdf(logit(t)) / 2
    rank = (np.arange(n) + 0.5) / n
    assert np.abs(mixture - rank).max() <= 1.5 / n + 1e-3  # each half is stratified into n / 2


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "mixed"])
def test_times_come_in_random_order_and_repeat_with_the_seed(kind: str) -> None:
    draws = [draw_times(64, kind, (0.0, 1.0), torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert abs(np.corrcoef(np.arange(64), draws[0].numpy())[0, 1]) < 0.5


# --- averaged weights -----------------------------------------------------------------------------------------------


def test_the_weights_after_training_are_the_running_average() -> None:
    """The raw weights of every step, one training each, averaged by hand."""
    preset = TrainPreset(decay="constant", warmup=1, batch=20)
    raw = [weights(run(preset=replace(preset, ema=0.0), steps=k)[0]) for k in range(1, 7)]
    average = raw[0]
    for n, current in enumerate(raw[1:], start=1):
        decay = min(0.999, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * current
    averaged = weights(run(preset=preset, steps=6)[0])
    torch.testing.assert_close(averaged, average, atol=1e-6, rtol=1e-5)
    assert (averaged - raw[-1]).abs().max() > 1e-4


def test_the_checkpoint_of_a_finished_run_holds_the_averaged_weights(tmp_path: Path) -> None:
    denoiser, _ = run(tmp_path)
    tensors = load_file(tmp_path / "checkpoint.safetensors")
    for name, value in denoiser.named_parameters():
        assert torch.equal(tensors[f"model.{name}"], value)
        assert torch.equal(tensors[f"average.module.{name}"], value)


# --- presets --------------------------------------------------------------------------------------------------------


def test_the_paper_preset_is_the_published_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = PRESETS["paper"]
    assert (paper.lr, paper.weight_decay, paper.batch, paper.epochs) == (1e-3, 1e-3, 512, 15)
    assert (paper.loss, paper.times, paper.warmup, paper.decay) == ("paper", "logit_normal", 100, "constant")
    given: dict[str, Any] = {}
    plain = torch.optim.AdamW

    def watched(parameters: Any, **choices: Any) -> torch.optim.AdamW:
        given.update(choices)
        return plain(parameters, **choices)

    monkeypatch.setattr(torch.optim, "AdamW", watched)
    _, record = run(preset="paper", steps=3, batch=None)
    assert (given["lr"], given["weight_decay"]) == (1e-3, 1e-3)
    assert record.preset["name"] == "paper"
    assert record.images_seen == 3 * 60
    assert math.isfinite(record.val_loss)


def test_a_compiled_training_learns_the_same_and_leaves_a_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def traced(call: Any) -> Any:  # the tracing, not the compiler
        calls.append(1)
        return torch._dynamo.optimize("eager")(call)

    monkeypatch.setattr(torch, "compile", traced)
    (plain, first), (compiled, second) = run(preset="default", steps=4), run(preset="compiled", steps=4)
    assert calls == [1]
    assert second.preset == {**first.preset, "name": "compiled", "compile": True}
    assert "backbone" not in vars(compiled)
    for (name, one), (_, other) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    monkeypatch.setattr(runtime, "compilers", lambda: ["no-such-compiler"])
    with pytest.raises(PhasewiseError, match=r"needs a C\+\+ compiler"):
        run(preset="compiled", steps=4)


def test_the_learning_rate_warms_up_then_stays_or_falls_to_two_per_cent() -> None:
    falling, steady = TrainPreset(warmup=10), TrainPreset(warmup=10, decay="constant")
    assert [learning_rate(steady, s, 1000) for s in (0, 4, 9, 10, 999)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert learning_rate(falling, 500, 1000) == pytest.approx(0.51)
    assert learning_rate(falling, 1000, 1000) == pytest.approx(0.02)
    assert learning_rate(TrainPreset(warmup=100), 1, 20) == pytest.approx(0.5, rel=0.05)  # warm-up: a fifth at most


def test_given_values_override_a_preset_and_none_does_not() -> None:
    plan = get_preset("paper", epochs=2, batch=None, steps=7)
    assert plan == replace(PRESETS["paper"], epochs=2, steps=7)
    assert get_preset(plan, batch=8).batch == 8
    json.dumps(plan.__dict__)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (lambda: "best", "unknown training preset 'best'; known: default, compiled,"),
        (lambda: 3, "preset is a name .* or a TrainPreset, got 3"),
        (lambda: TrainPreset(lr=0), "lr must be a number above 0"),
        (lambda: TrainPreset(batch=0), "batch must be a whole number >= 1"),
        (lambda: TrainPreset(epochs=0), "epochs must lie in"),
        (lambda: TrainPreset(steps=0), "steps must be a whole number >= 1"),
        (lambda: TrainPreset(loss="l1"), "unknown loss 'l1'; known: flow, paper"),
        (lambda: TrainPreset(decay="linear"), "unknown decay 'linear'"),
        (lambda: TrainPreset(times="beta"), "unknown time distribution 'beta'"),
        (lambda: TrainPreset(precision="float16"), "unknown precision 'float16'"),
    ],
)
def test_a_preset_that_makes_no_sense_is_refused(preset: Callable[[], Any], message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        run(preset=preset(), steps=None, batch=None)


# --- what cannot go on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5)])
def test_a_span_lies_inside_zero_to_one(span: tuple[float, float]) -> None:
    with pytest.raises(PhasewiseError, match=r"span must be an interval .* inside"):
        run(span=span)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(PhasewiseError, match=r"images of shape \(1, 8, 8\) do not fit a denoiser for \(1, 6, 5\)"):
        train(network(), digits(), steps=1, progress=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    broken = few().train.clone()
    broken[3, 0, 2, 2] = bad
    for data in (replace(few(), train=broken), broken):
        with pytest.raises(PhasewiseError):
            train(network(), data, steps=2, progress=False)


@pytest.mark.parametrize("loss", ["flow", "paper"])
def test_a_diverging_training_stops_and_says_so(tmp_path: Path, loss: str) -> None:
    preset = TrainPreset(lr=1e30, loss=loss, clip=0.0, warmup=1)
    with pytest.raises(
        PhasewiseError, match=r"training of r2 diverged at step .*Lower the learning rate \(now 1e\+30\)"
    ):
        run(tmp_path, preset=preset, steps=200, name="r2", checkpoint_every=0.0)
    kept = tmp_path / "checkpoint.safetensors"
    assert not kept.exists() or all(torch.isfinite(v).all() for v in load_file(kept).values())


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/b"])
def test_networks_trained_together_stay_in_their_folder(tmp_path, name):
    networks = {name: LocalDenoiser((1, 6, 5), 1, width=8)}
    with pytest.raises(PhasewiseError, match="a network's name becomes a folder"):
        train_together(networks, few(), steps=1, out=tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []
