r"""Mixtures of Gaussian fields: a hidden label of the whole image, and correlations that no Gaussian model has.

``X_0 ~ sum_k w_k N(m_k, K_k)``; noise keeps it a mixture, with components ``N(alpha m_k, alpha^2 K_k + sigma^2 I)``,
and so does restricting it to any set R of pixels.  Everything follows from the posterior of the label,
``q_k(x_R) ~ w_k N(x_R; alpha m_k, K_t,k on R)``, and from closed forms of the components (k is the label)::

    D_r(x)_i     = sum_k q_k(x on N_r(i)) D_r^k(x)_i
    I(A : C | B) = sum_k w_k I_k(A : C | B)  +  E[ H(q(x_ABC)) + H(q(x_B)) - H(q(x_AB)) - H(q(x_BC)) ]         (1)
    mmse_r       = sum_k w_k mmse_r^k  +  E sum_i sum_k q_k (D_r^k - D_r)_i^2                                  (2)

(1) is the chain rule for I(A : C, k | B): given the label the information is closed, and what the label adds or takes
is a sum of its entropies, each of a posterior that is exact.  Only these averages are drawn, over noisy images of the
model, so components that are equal leave no sampling error at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact.base import (
    Center,
    ClassTerms,
    ExactModel,
    Regions,
    averaged,
    check_images,
    check_radius_or_zero,
    closed,
    noise_level,
    regions,
)
from phasewise.exact.gaussian import GaussianModel, gaussian_cmi
from phasewise.paths import NoisePath, Time, as_time
from phasewise.results import Estimate

CHUNK = 4096
LABELS, NOISY = 2, 3  # streams of a seed beside the one that the components' images come from
_components = checks.each(checks.made(GaussianModel, "a Gaussian model", "such as exact.GaussianField"))


class GaussianMixture(ExactModel):
    """One of several Gaussian models, drawn anew for every image.

    Args:
        components: of equal shape and ``wrap``.
        weights: chances (K,), positive, summing to 1; None: equal ones.
    """

    @checks.checked(components=_components, weights=checks.each(checks.positive))
    def __init__(self, components: Sequence[GaussianModel], weights: Sequence[float] | None = None) -> None:
        self.components = tuple(components)
        first, k = self.components[0], len(self.components)
        if any((c.image_shape, c.wrap) != (first.image_shape, first.wrap) for c in self.components):
            raise PhasewiseError("the components of a mixture must have one image shape and one wrap")
        self.weights = tuple(weights) if weights is not None else (1 / k,) * k
        if len(self.weights) != k or abs(sum(self.weights) - 1) > 1e-9:
            raise PhasewiseError(f"weights must be {k} numbers that sum to 1, got {list(self.weights)}")
        self.image_shape, self.wrap = first.image_shape, first.wrap

    @checks.checked(n=checks.count, seed=checks.seed)
    def labels(self, n: int, seed: int) -> Tensor:
        """Which component each image of :meth:`sample` is of, (n,) int64."""
        u = np.random.default_rng([seed, LABELS]).random(n)
        found = np.searchsorted(np.cumsum(self.weights), u, side="right")
        return torch.from_numpy(np.minimum(found, len(self.weights) - 1))

    @checks.checked(n=checks.count, seed=checks.seed)
    def sample(self, n: int, seed: int) -> Tensor:
        """(n, 1, H, W) float32; all components share their Gaussian numbers."""
        label, out = self.labels(n, seed), torch.empty(n, *self.image_shape)
        for k, component in enumerate(self.components):
            out = torch.where((label == k)[:, None, None, None], component.sample(n, seed), out)
        return out

    @checks.checked(x=checks.tensor, pixels=checks.tensor)
    def posterior(self, x: Tensor, t: float, pixels: Tensor | None = None, path: NoisePath | None = None) -> Tensor:
        """Chances (n, K) float64 of the components given noisy images ``x`` (n, 1, H, W) at time t, or given their
        ``pixels`` (flat numbers) alone.

        Raises :class:`PhasewiseError` where a component's covariance is singular: at sigma = 0 of a massless field.
        """
        flat = check_images(x, self.image_shape).flatten(1)
        seen = torch.arange(flat.shape[1]) if pixels is None else pixels.reshape(-1).long()
        if bool(((seen < 0) | (seen >= flat.shape[1])).any()):
            raise PhasewiseError(f"pixels are numbers from 0 to {flat.shape[1] - 1}, got {seen.tolist()}")
        return self._log_posterior(flat, t, seen, path).exp()

    def denoiser(self, radius: int | None = None, path: NoisePath | None = None) -> MixtureDenoiser:
        """The exact posterior mean, of the image or of each pixel given its window."""
        return MixtureDenoiser(self, radius, path)

    @checks.checked(n=checks.count, seed=checks.seed)
    def cmi(
        self,
        t: float,
        radius: int,
        block: int = 1,
        center: Center | None = None,
        path: NoisePath | None = None,
        n: int = 20_000,
        seed: int = 0,
    ) -> Estimate:
        """``I(A : C | B)`` at time t in nats by (1): a closed form, and the mean over ``n`` noisy images of exact
        terms, with its standard error.  Exactly 0 when C is empty."""
        region = regions(self.shape, radius, block, center, self.wrap)
        if len(region.c) == 0:
            return Estimate(0.0, 0.0, n, seed=seed)
        given = self.cmi_given_component(t, radius, block, center, path)
        _, near, far = self._told(self._noisy(t, n, seed, path), t, region, path)
        return averaged(given + near - far, seed)

    @checks.checked(n=checks.count, seed=checks.seed)
    def class_terms(
        self,
        t: float,
        radius: int,
        block: int = 1,
        center: Center | None = None,
        path: NoisePath | None = None,
        n: int = 4096,
        seed: int = 0,
    ) -> ClassTerms:
        """What the label, as a class, has to do with locality at time t > 0: means over ``n`` noisy images; what is
        said given the label is closed."""
        region = regions(self.shape, radius, block, center, self.wrap)
        x, given = self._noisy(t, n, seed, path), self.cmi_given_component(t, radius, block, center, path)
        posterior, near, far = self._told(x, t, region, path)
        gap, known = torch.full((n,), math.nan, dtype=torch.float64), math.nan
        if len(region.a) == 1:
            seen, a = _seen(region), int(region.a)
            means, left = zip(*(self._pixel(x, t, a, seen[name], path) for name in ("ab", "abc")), strict=True)
            apart = (posterior["abc"] * means[1]).sum(1) - (posterior["ab"] * means[0]).sum(1)
            gap, known = apart.square(), left[0] - left[1]
        return ClassTerms(
            cmi=averaged(given + near - far, seed), given=closed(given), near=averaged(near, seed),
            far=averaged(far, seed), gap=averaged(gap, seed, "squared pixel units"),
            gap_given=closed(known, "squared pixel units"),
            agreement=averaged(posterior["abc"].square().sum(1), seed, "share"),
        )  # fmt: skip

    def _told(
        self, x: Tensor, t: float, region: Regions, path: NoisePath | None
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The label's chances (n, K) given B, AB, BC and ABC by name, and what A tells of it beside B, and beside B and
        C: (n,) nats."""
        posterior = {name: self._log_posterior(x, t, pixels, path).exp() for name, pixels in _seen(region).items()}
        unknown = {name: torch.special.entr(q).sum(1) for name, q in posterior.items()}
        return posterior, unknown["b"] - unknown["ab"], unknown["bc"] - unknown["abc"]

    def _pixel(self, x: Tensor, t: float, pixel: int, seen: Tensor, path: NoisePath | None) -> tuple[Tensor, float]:
        """Of one clean pixel given the noisy ``seen`` ones and the label: posterior means (n, K), mean variance."""
        alpha, _ = noise_level(t, path)
        columns, left = [], 0.0
        for weight, c in zip(self.weights, self.components, strict=True):
            cross = alpha * c.covariance[pixel, seen]
            gain = torch.linalg.solve(c.noisy_covariance(t, path)[seen][:, seen], cross)
            columns.append(c.mean[pixel] + (x[:, seen] - alpha * c.mean[seen]) @ gain)
            left += weight * float(c.covariance[pixel, pixel] - cross @ gain)
        return torch.stack(columns, 1), left

    def cmi_given_component(
        self, t: float, radius: int, block: int = 1, center: Center | None = None, path: NoisePath | None = None
    ) -> float:
        """``I(A : C | B, k)``, the component known: the weighted mean of the components' own, nats, a closed form."""
        region = regions(self.shape, radius, block, center, self.wrap)
        parts = [gaussian_cmi(c.noisy_covariance(t, path), region.a, region.b, region.c) for c in self.components]
        return sum(w * part for w, part in zip(self.weights, parts, strict=True))

    @checks.checked(n=checks.count, seed=checks.seed)
    def mmse(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, n: int = 20_000, seed: int = 0
    ) -> Estimate:
        """``E|D_radius - X_0|^2`` per image by (2), summed over pixels, in squared pixel units."""
        own = sum(w * c.mmse(t, radius, path) for w, c in zip(self.weights, self.components, strict=True))
        denoiser, terms = self.denoiser(radius, path), []
        if noise_level(t, path)[1] == 0:
            return Estimate(0.0, 0.0, n, "squared pixel units", seed)
        for part in self._noisy(t, n, seed, path).split(CHUNK):
            means, chances = denoiser.by_component(part, t)
            apart = means - (chances * means).sum(2, keepdim=True)
            terms.append((chances * apart**2).sum((1, 2)))
        return averaged(own + torch.cat(terms), seed, "squared pixel units")

    def _noisy(self, t: float, n: int, seed: int, path: NoisePath | None) -> Tensor:
        """``n`` noisy images (n, N) in float64, drawn from the mixture at time t."""
        alpha, sigma = noise_level(t, path)
        label = self.labels(n, seed)
        z = torch.from_numpy(np.random.default_rng([seed, NOISY]).standard_normal((n, self.components[0].mean.numel())))
        out = torch.empty_like(z)
        for k, component in enumerate(self.components):
            rows, (values, vectors) = label == k, component.pixels.spectrum
            scale = (alpha**2 * values + sigma**2).sqrt()
            out[rows] = alpha * component.mean + ((z[rows] @ vectors) * scale) @ vectors.T
        return out

    def _log_posterior(self, x: Tensor, t: float, pixels: Tensor, path: NoisePath | None) -> Tensor:
        """``log q_k(x on pixels)``, (n, N) -> (n, K)."""
        alpha, _ = noise_level(t, path)
        found = []
        for weight, component in zip(self.weights, self.components, strict=True):
            covariance = component.noisy_covariance(t, path)[pixels][:, pixels]
            centred = x[:, pixels] - alpha * component.mean[pixels]
            found.append(math.log(weight) + _log_density(covariance[None], centred[:, None])[:, 0])
        return torch.stack(found, 1).log_softmax(1)

    def __repr__(self) -> str:
        return f"GaussianMixture({list(self.components)}, weights={list(self.weights)})"


class MixtureDenoiser(Denoiser):
    """The exact posterior mean of a :class:`GaussianMixture`; float64 inside, on the CPU; returned like ``x_t``."""

    def __init__(self, model: GaussianMixture, radius: int | None = None, path: NoisePath | None = None) -> None:
        super().__init__(model.image_shape, path, radius)
        if radius is not None:
            check_radius_or_zero(radius)
        self._model = model
        self._parts = torch.nn.ModuleList([c.denoiser(radius, path) for c in model.components])

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), t a float or (B,) -> (B, 1, H, W)."""
        x = check_images(x_t, self.image_shape).cpu().flatten(1)
        times = as_time(t.cpu() if isinstance(t, Tensor) else t, x).expand(len(x), 1).reshape(-1)
        out = torch.empty_like(x)
        for time in times.unique().tolist():
            rows = times == time
            if noise_level(time, self.path)[1] == 0:
                out[rows] = x[rows] / noise_level(time, self.path)[0]
            else:
                means, chances = self.by_component(x[rows], time)
                out[rows] = (chances * means).sum(2)
        return out.reshape(x_t.shape).to(x_t)

    def by_component(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Each component's own posterior mean and its chance, at every pixel: both (n, N, K), of ``x`` (n, N)."""
        images = x.reshape(-1, *self.image_shape)
        means = torch.stack([part(images, t).flatten(1) for part in self._parts], 2)
        return means, self._log_chances(x, t).softmax(2)

    def _log_chances(self, x: Tensor, t: float) -> Tensor:
        """``log q_k`` up to a constant, given each pixel's window or the image, (n, N, K)."""
        if self.radius is None:
            everywhere = torch.arange(x.shape[1])
            return self._model._log_posterior(x, t, everywhere, self.path)[:, None].expand(-1, x.shape[1], -1)
        alpha, sigma = noise_level(t, self.path)
        out = torch.empty(*x.shape, len(self._parts), dtype=torch.float64)
        for k, (weight, c) in enumerate(zip(self._model.weights, self._model.components, strict=True)):
            for group in c.pixels.windows(self.radius):
                clean = c.pixels.within(group)
                covariance = alpha**2 * clean + sigma**2 * torch.eye(clean.shape[-1], dtype=torch.float64)
                centred = (x - alpha * c.mean)[:, group.indices]
                out[:, group.pixels, k] = math.log(weight) + _log_density(covariance, centred)
        return out


def _log_density(covariance: Tensor, centred: Tensor) -> Tensor:
    """``log N(centred; 0, covariance)`` up to ``(2 pi)^(-m/2)``: (g or 1, m, m) and (n, g, m) -> (n, g)."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal(dim1=1, dim2=2)
    if bool(info.any()) or bool((pivots < 1e-7 * pivots[:, :1]).any()):  # its square is rounding
        raise PhasewiseError("the covariance of a component is singular here, so it has no density; take t > 0")
    # (g, m, n): one triangular solve for all images
    white = torch.linalg.solve_triangular(factor, centred.permute(1, 2, 0), upper=False)
    return -0.5 * white.square().sum(1).T - pivots.log().sum(1)


def _seen(region: Regions) -> dict[str, Tensor]:
    a, b, c = region.a, region.b, region.c
    return {"b": b, "ab": torch.cat([a, b]), "bc": torch.cat([b, c]), "abc": torch.cat([a, b, c])}
