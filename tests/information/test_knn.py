"""Nearest-neighbour estimators against slow twins, exact truths, and their known collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import digamma

from phasewise.errors import PhasewiseError
from phasewise.exact import TwoMode
from phasewise.information import make_problem
from phasewise.information.knn import NearestNeighbours, _axes, _project, nearest_neighbour_cmi


def slow_cmi(a: np.ndarray, b: np.ndarray, c: np.ndarray, k: int, method: str) -> float:
    """Point by point, from all distances."""
    terms = []
    for i in range(len(a)):
        da, db, dc = (np.abs(np.delete(x, i, 0) - x[i]).max(1) for x in (a, b, c))
        joint = np.maximum(np.maximum(da, db), dc)
        eps = np.sort(joint)[k - 1]
        pairs = [np.maximum(da, db), np.maximum(db, dc), db]
        if method == "frenzel-pompe":
            counts = [k, *(int((d < eps).sum()) + 1 for d in pairs)]
        else:
            counts = [int((joint <= eps).sum()), *(int((d <= eps).sum()) for d in pairs)]
        terms.append(digamma(counts[0]) - digamma(counts[1]) - digamma(counts[2]) + digamma(counts[3]))
    return float(np.mean(terms))


def samples(n: int, *dims: int, seed: int = 0) -> list[np.ndarray]:
    """Correlated Gaussian columns."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1))
    return [common + rng.standard_normal((n, d)) for d in dims]


@pytest.mark.parametrize("method", ["frenzel-pompe", "mesner-shalizi"])
def test_trees_agree_with_all_distances(method: str) -> None:
    a, b, c = samples(150, 2, 3, 2)
    assert nearest_neighbour_cmi(a, b, c, 3, method) == pytest.approx(slow_cmi(a, b, c, 3, method), abs=1e-12)


def test_ties_count_for_mesner_shalizi() -> None:
    a, b, c = (np.round(x) for x in samples(150, 1, 1, 1))
    assert nearest_neighbour_cmi(a, b, c, 3, "mesner-shalizi") == pytest.approx(
        slow_cmi(a, b, c, 3, "mesner-shalizi"), abs=1e-12
    )


def test_frenzel_pompe_agrees_with_another_library() -> None:
    ennemi = pytest.importorskip("ennemi")
    a, b, c = samples(400, 1, 3, 1)
    other = float(ennemi.estimate_mi(c[:, 0], a[:, 0], cond=b, k=3, preprocess=False, max_threads=1)[0, 0])
    assert nearest_neighbour_cmi(a, b, c, 3, "frenzel-pompe") == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(("method", "k"), [("frenzel-pompe", 3), ("mesner-shalizi", 20)])
def test_few_pixels_are_read_right(method: str, k: int) -> None:
    model = TwoMode((1, 5))
    problem = make_problem(model.sample(2000, 1), [0.5], [0, 1])
    estimator = NearestNeighbours(method=method, k=k, blocks=8)
    for (_, j), got in estimator.estimate(problem, [(0, 0), (0, 1)]):
        assert got.n == estimator.held_out(2000) == 1600
        assert 0.003 < got.stderr < 0.04
        assert got.value == pytest.approx(model.cmi(0.5, problem.radii[j]), abs=3 * got.stderr)
        assert got.value > got.stderr


def test_components_are_the_leading_principal_axes() -> None:
    clean = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1])
    projected = _project(clean, _axes(clean, 1))[:, 0]
    assert abs(float(torch.corrcoef(torch.stack([projected, clean[:, 1]]))[0, 1])) > 0.999
    two = torch.linalg.svd((clean - clean.mean(0)).double(), full_matrices=False)[2][:2].float()
    assert torch.allclose((_axes(clean, 2).T * two).sum(1).abs(), torch.ones(2), atol=1e-5)
    assert _project(clean, _axes(clean, 3)) is clean
    assert _project(clean, _axes(clean, None)) is clean


def test_axes_are_fitted_once_for_each_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(TwoMode((1, 5)).sample(200, 1), [0.3, 0.5, 0.7], [0, 1])
    fitted = []
    monkeypatch.setattr("phasewise.information.knn._axes", lambda clean, d: fitted.append(len(clean)))
    cells = [(i, j) for i in range(3) for j in range(2)]
    assert len(list(NearestNeighbours(components=1, blocks=2).estimate(problem, cells))) == 6
    assert fitted == [40] * 4


def test_high_dimension_collapses_and_components_help() -> None:
    model = TwoMode((6, 6))
    problem = make_problem(model.sample(1500, 1), [0.6], [0])
    truth = model.cmi(0.6, 0)
    full, projected = (
        next(iter(NearestNeighbours(components=d, blocks=3).estimate(problem, [(0, 0)])))[1].value for d in (None, 1)
    )
    assert full < 0.65 * truth
    assert abs(projected - truth) < 0.5 * abs(full - truth)


def test_images_scored_are_capped_and_the_answer_repeats() -> None:
    problem = make_problem(TwoMode((1, 5)).sample(400, 1), [0.5], [1])
    estimator = NearestNeighbours(n_max=100, components=None)
    first, second = (next(iter(estimator.estimate(problem, [(0, 0)])))[1] for _ in range(2))
    assert first == second
    assert first.n == estimator.held_out(400) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "kraskov"}, "mesner-shalizi"),
        ({"k": 0}, "k must"),
        ({"components": 0}, "components"),
        ({"components": True}, "components must be a whole number >= 1"),
        ({"k": 2.5}, "k must"),
        ({"train_fraction": 0}, "train_fraction"),
        ({"n_max": 5}, "n_max"),
        ({"blocks": 1}, "blocks"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        NearestNeighbours(**options)


def test_too_few_images_for_k_are_refused() -> None:
    problem = make_problem(TwoMode((1, 5)).sample(20, 1), [0.5], [1])
    with pytest.raises(PhasewiseError, match="too few for k = 15"):
        next(iter(NearestNeighbours(k=15).estimate(problem, [(0, 0)])))


def test_images_of_the_axes_are_never_scored() -> None:
    problem = make_problem(TwoMode((1, 5)).sample(100, 1), [0.5], [1])
    for fraction in (0.2, 0.5):
        fitted, scored = NearestNeighbours(components=1, train_fraction=fraction)._split(problem)
        assert (len(fitted), len(scored)) == (100 * fraction, 100 - 100 * fraction)
        assert sorted(torch.cat([fitted, scored]).tolist()) == list(range(100))
    with pytest.raises(PhasewiseError, match=r"leave 0 to score \(100 are kept .*smaller k or train_fraction"):
        next(iter(NearestNeighbours(train_fraction=0.999).estimate(problem, [(0, 0)])))


def test_too_few_images_for_the_axes_are_refused() -> None:
    problem = make_problem(TwoMode((2, 8)).sample(50, 1), [0.5], [1])
    with pytest.raises(PhasewiseError, match=r"2 images .* cannot give 4 components; .*larger train_fraction or fewer"):
        next(iter(NearestNeighbours(train_fraction=0.04).estimate(problem, [(0, 0)])))
