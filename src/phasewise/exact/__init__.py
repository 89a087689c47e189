"""Distributions whose samples, denoisers (global and windowed) and conditional mutual information are known exactly.

Ground truth for every estimator: nothing here shares code with :mod:`phasewise.information`, so it can refute it.
"""

from phasewise.exact import ensembles
from phasewise.exact.base import ClassTerms, ExactModel, Regions, WindowGroup, regions, windows
from phasewise.exact.discrete import DiscreteSystem, LayerRecovery
from phasewise.exact.gaussian import GaussianField, GaussianModel, gaussian_cmi
from phasewise.exact.ising import IsingChain, IsingDenoiser, IsingStrip
from phasewise.exact.ising_torus import IsingTorus
from phasewise.exact.mixture import GaussianMixture, MixtureDenoiser
from phasewise.exact.quantum import PetzMap, QuantumState, Recovery, fidelity
from phasewise.exact.reverse import Reversal, reverse_bits, reverse_field, score_gap
from phasewise.exact.torus import TorusField, TorusModes, periodogram
from phasewise.exact.torus_plan import PooledPlan
from phasewise.exact.two_mode import TwoMode, TwoModeDenoiser
from phasewise.exact.wiener import GaussianDenoiser

__all__ = [
    "ClassTerms",
    "DiscreteSystem",
    "ExactModel",
    "GaussianDenoiser",
    "GaussianField",
    "GaussianMixture",
    "GaussianModel",
    "IsingChain",
    "IsingDenoiser",
    "IsingStrip",
    "IsingTorus",
    "LayerRecovery",
    "MixtureDenoiser",
    "PetzMap",
    "PooledPlan",
    "QuantumState",
    "Recovery",
    "Regions",
    "Reversal",
    "TorusField",
    "TorusModes",
    "TwoMode",
    "TwoModeDenoiser",
    "WindowGroup",
    "ensembles",
    "fidelity",
    "gaussian_cmi",
    "periodogram",
    "regions",
    "reverse_bits",
    "reverse_field",
    "score_gap",
    "windows",
]
