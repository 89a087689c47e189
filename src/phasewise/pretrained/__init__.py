"""Denoisers that come with the package: weights, schedules, feature moments and records, per data set.

    ready = pw.load_pretrained("mnist")
    x = pw.sample(ready.hybrid(), n=64, seed=0)

A set is a folder ``NAME/`` laid out as a run folder (``models/``, ``records/``, ``run.json``), so whatever reads a run
reads it; the weights are half precision on disk and float32 in memory.  A folder without ``card.json`` holds judges
alone, for runs on the same images.
"""

from phasewise.pretrained.sets import Pretrained, load_pretrained, pretrained_names

__all__ = ["Pretrained", "load_pretrained", "pretrained_names"]
