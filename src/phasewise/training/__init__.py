"""Training by flow matching: presets, loss, EMA, validation by time bin, checkpoints that resume to the same bit."""

from phasewise.training.loop import train, train_together
from phasewise.training.loss import denoising_loss, draw_times
from phasewise.training.presets import PRESETS, TrainPreset, get_preset, learning_rate
from phasewise.training.settings import TrainSettings

__all__ = [
    "PRESETS",
    "TrainPreset",
    "TrainSettings",
    "denoising_loss",
    "draw_times",
    "get_preset",
    "learning_rate",
    "train",
    "train_together",
]
