"""How far does a network really see?  Three answers, for any denoiser, at every time, without training.

By the derivative (:mod:`~phasewise.diagnosis.influence`), by taking the far pixels away
(:mod:`~phasewise.diagnosis.windowed`), and, of a transformer, by taking far attention away
(:mod:`~phasewise.diagnosis.attention_window`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser
from phasewise.denoisers.base import a_denoiser
from phasewise.diagnosis.attention_window import attends, measure_attention_windows
from phasewise.diagnosis.influence import measure_influence
from phasewise.diagnosis.noised import usual_radii
from phasewise.diagnosis.windowed import measure_windowed_answer
from phasewise.results import Reach

TIMES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


@checks.checked(
    denoiser=a_denoiser,
    data=images_or_set,
    times=checks.times,
    radii=checks.each(checks.pixels),
    windows=checks.each(checks.whole(0, what="a whole number of tokens")),
    patch=checks.count,
    per_layer=checks.flag,
    name=checks.text,
    n=checks.at_least_2,
    pixels=checks.count,
    seed=checks.seed,
    batch=checks.count,
    progress=checks.function,
)
def reach(
    denoiser: Denoiser,
    data: ImageData | Tensor,
    *,
    times: Sequence[float] = TIMES,
    radii: Sequence[int] | None = None,
    windows: Sequence[int] | None = None,
    patch: int | None = None,
    per_layer: bool = False,
    name: str | None = None,
    n: int = 64,
    pixels: int = 2,
    cond: Condition | str | None = None,
    seed: int = 0,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Reach:
    """How far ``denoiser`` sees at every time: influence by distance, the windowed answer, attention within windows.

    ``data`` is (N, C, H, W) of held-out images, or an ImageData, whose test part is used; a model without images at
    hand may be shown its own samples.  ``times`` in (0, 1] are on the denoiser's path.  ``radii`` in pixels (max-norm):
    default 1, 2, 3, 4, 6, 8, 12 ... below the image, and the radius that the denoiser declares.  ``windows`` and
    ``patch`` as for :func:`measure_attention_windows`, which is left out where the denoiser calls no attention over a
    grid; asked for by either argument, it is required.  ``name`` is what tables and figures call it.

    ``n`` images, ``pixels`` random ones of each.  By default, on images of 28 pixels a side, as much as 12,500 calls of
    the network on one image, and 4,000 more with attention.  ``progress(done, total)`` after each of the parts.

    Raises PhasewiseError where one of the parts does: see :func:`measure_influence`, :func:`measure_windowed_answer`
    and :func:`measure_attention_windows`.
    """
    if radii is None:
        declared = set() if denoiser.radius is None else {denoiser.radius}
        radii = sorted(declared.union(usual_radii(max(denoiser.image_shape[1:]) - 1)))
    asked = windows is not None or patch is not None
    attention = asked or attends(denoiser, data, times, cond)
    about: Any = {"cond": cond, "n": n, "seed": seed, "batch": batch}
    tell = progress or (lambda done, total: None)
    parts = 2 + attention
    # the windowed answer first: it is quick to refuse radii that do not fit
    windowed = measure_windowed_answer(denoiser, data, times, radii, pixels=pixels, **about)
    tell(1, parts)
    influence = measure_influence(denoiser, data, times, pixels=pixels, **about)
    tell(2, parts)
    within = None
    if attention:
        within = measure_attention_windows(denoiser, data, times, windows, patch=patch, per_layer=per_layer, **about)
        tell(3, parts)
    return Reach(name or type(denoiser).__name__, influence, windowed, within)
