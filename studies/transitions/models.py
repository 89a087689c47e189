"""Models whose every term is exact: two modes, Ising below and above its transition, a mixture of two textures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from phasewise.diagnosis import speciation
from phasewise.diagnosis.symmetry import KAPPA
from phasewise.exact import ClassTerms, GaussianField, GaussianMixture, IsingStrip, TwoMode
from phasewise.paths import LinearPath
from studies.transitions.marks import curve_marks, falls_at

TERMS = ("cmi", "given", "near", "far", "gap", "gap_given", "agreement")
MODELS: dict[str, tuple[str, Any]] = {
    "two modes, 8 x 8": ("two", 8),
    "two modes, 16 x 16": ("two", 16),
    "two modes, 32 x 32": ("two", 32),
    "two modes, 64 x 64": ("two", 64),
    "Ising 5 x 5, beta .3": ("ising", (5, 0.3)),
    "Ising 5 x 5, beta .44": ("ising", (5, 0.44)),
    "Ising 5 x 5, beta .7": ("ising", (5, 0.7)),
    "two textures, 8 x 8": ("textures", 8),
    "two textures, 16 x 16": ("textures", 16),
}


def model_of(name: str) -> TwoMode | IsingStrip | GaussianMixture:
    kind, about = MODELS[name]
    if kind == "two":
        return TwoMode((about, about))
    if kind == "ising":
        side, beta = about
        return IsingStrip(side, side, beta)
    return GaussianMixture([GaussianField((about, about), mass) for mass in (0.05, 1.0)])


def terms_of(model: TwoMode | IsingStrip | GaussianMixture, t: float, radius: int, n: int) -> ClassTerms:
    return model.class_terms(t, radius) if isinstance(model, TwoMode) else model.class_terms(t, radius, n=n)


def measure_model(name: str, log_snr: tuple[float, ...], radius: int, n: int) -> dict[str, Any]:
    """All terms over the axis (pixels have unit variance), and the marks of both transitions."""
    model = model_of(name)
    times = [float(LinearPath().t_of_log_snr(x)) for x in log_snr]
    found = [terms_of(model, t, radius, n) for t in times]
    curves = {k: [[getattr(f, k).value for f in found], [getattr(f, k).stderr for f in found]] for k in TERMS}
    if isinstance(model, TwoMode):
        eigenvalue = [float(model.shape[0] * model.shape[1])] * 3
    elif isinstance(model, GaussianMixture):
        mean = sum(w * c.covariance for w, c in zip(model.weights, model.components, strict=True))
        eigenvalue = [float(torch.linalg.eigvalsh(torch.as_tensor(mean))[-1])] * 3
    else:
        s = speciation(model.sample(20_000, 3))
        eigenvalue = [s.eigenvalue, s.eigenvalue_low, s.eigenvalue_high]
    return {
        "log_snr": list(log_snr),
        "curves": curves,
        "speciation": [-math.log(eigenvalue[k]) for k in (0, 2, 1)],
        "cloning": falls_at(log_snr, curves["agreement"][0], 0.5 + KAPPA / 2),
        "marks": marks_of(log_snr, curves),
    }


def marks_of(log_snr: Any, curves: dict[str, Any]) -> dict[str, Any]:
    """Peaks and windows of the CMI, of both class terms, and of the gap in three units."""
    x = np.asarray(log_snr)
    gamma, t = np.exp(x), 1 / (1 + np.exp(x / 2))
    gap, error = (np.asarray(v) for v in curves["gap"])
    root = np.sqrt(np.maximum(gap, 1e-300))
    drawn = {
        "CMI": curves["cmi"],
        "CMI given the class": curves["given"],
        "I(A;S|B)": curves["near"],
        "gap, kl": [gamma * gap / 2, gamma * error / 2],
        "gap, w2": [root * (1 - t) / 2, error / (2 * root) * (1 - t) / 2],
        "gap, flow": [gap * (1 - t) / (2 * t), error * (1 - t) / (2 * t)],
    }
    return {name: curve_marks(x, *curve) for name, curve in drawn.items()}


def bound_row(found: dict[str, Any]) -> dict[str, float]:
    """How loose ``Delta_loc^4 <= 4 d_A (d_A + 3) t^-4 I`` is for one pixel, where the gap is largest in nats.

    ``Delta_loc``, the root mean square of the score's error on A, is ``alpha sqrt(gap) / sigma^2``; so on the linear
    path the bound says ``gamma gap <= 4 sqrt(I)``.  ``ratio``: right side over left, in fourth powers; ``linear``:
    ``2 I / (gamma gap)``, at least 1 wherever the gap falls as A's own noise does.
    """
    gamma = np.exp(np.asarray(found["log_snr"]))
    gap, cmi = np.asarray(found["curves"]["gap"][0]), np.asarray(found["curves"]["cmi"][0])
    k = int(np.argmax(gamma * gap))
    left = float(gamma[k] * gap[k])
    ratios = 16 * cmi / np.maximum(gamma * gap, 1e-150) ** 2
    return {
        "log_snr": float(found["log_snr"][k]), "cmi": float(cmi[k]), "left": left,
        "ratio": float(ratios[k]), "least": float(ratios[gamma * gap > 0.01 * left].min()),
        "linear": float(2 * cmi[k] / left),
        "linear_least": float((2 * cmi / np.maximum(gamma * gap, 1e-150))[gamma * gap > 0.1 * left].min()),
    }  # fmt: skip


def inclusion(found: dict[str, Any]) -> dict[str, Any]:
    """The follow-up's condition and what it promises.

    ``a``: the least share of the CMI that goes when the class is known, over the CMI's window; ``until``: the lowest
    noise of that window down to which a is at least a half.  By the chain rule ``a I(A;C|B) <= I(A;S|B)``: ``local``
    says whether that holds at every point.  ``cloned``: log-SNRs at which clones have gone a tenth and nine tenths of
    the way to one class, the class's window as whole images have it.
    """
    x = np.asarray(found["log_snr"])
    cmi, given, near = (np.asarray(found["curves"][k][0]) for k in ("cmi", "given", "near"))
    error = np.asarray(found["curves"]["near"][1]) + np.asarray(found["curves"]["cmi"][1])
    inside = cmi > 0.1 * cmi.max()
    a = 1 - given / np.where(cmi > 0, cmi, np.nan)
    agreement = found["curves"]["agreement"][0]
    bad = np.flatnonzero(inside & (a < 0.5))
    until = None if not inside.any() else float(x[inside][-1] if not len(bad) else x[max(bad[0] - 1, 0)])
    ends = [falls_at(x, agreement, 0.5 + part / 2) for part in (0.1, 0.9)]
    low, high = (found["marks"]["CMI"][k] for k in ("low", "high"))
    return {
        "a": float(np.nanmin(a[inside])),
        "until": None if len(bad) and bad[0] == np.flatnonzero(inside)[0] else until,
        "a_peak": float(a[int(np.argmax(cmi))]),
        "local": bool((a * cmi <= near + 2 * error)[inside].all()),
        "cloned": ends,
        "window": [None if low is None else low[0], None if high is None else high[0]],
    }
