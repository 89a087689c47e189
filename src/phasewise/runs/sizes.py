"""Named sizes of a run: what an option is where it is not given, by how large the images are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from phasewise.runs.members import kind_and_size
from phasewise.runs.parts import DataOptions

SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "cpu": {
        "radii": (1, 2, 3, 5, 8, 12), "window_radius": 3, "global_width": 32, "cheap_globals": ("coarse",),
        "growth_trajectories": 0, "solver": "sde_dpmpp_2m",
        "global_epochs": 14, "local_epochs": 7, "n_losses": 2000, "n_recovery": 250, "n_samples": 3000,
        "cmi_radii": (1, 2, 3, 4, 5, 6), "cmi_times": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9),
        "cmi_accuracy": 0.003,
    },
    "smoke": {
        "radii": (1, 2), "window_radius": 1, "global_width": 8, "global_epochs": 4, "local_epochs": 4, "steps": 5,
        "times": (0.1, 0.3, 0.5, 0.7, 0.9), "recovery_times": (0.3, 0.6), "n_losses": 100, "n_recovery": 20,
        "n_samples": 150, "n_grid": 16, "cmi_radii": (1, 2), "cmi_times": (0.3, 0.6), "cmi_accuracy": 0.1,
        "cmi_options": {"steps": 20, "folds": 2}, "cmi_crop": 16, "place": 2, "clone_images": 20, "clone_steps": 4,
    },
}  # fmt: skip
"""Named sizes: "small" for images up to 16 pixels (minutes), "cpu" for larger ones (an hour to one and a half on two
cores up to 64 pixels, three at 128), "smoke" to try the whole chain in seconds, results meaningless."""
SMOKE_SIDE, SMOKE_PIXELS, SMOKE_LEAST = 16, 1_000_000, 100
"""Up to which side smoke does as it says; beyond, pixels of all training images together, and the fewest of them."""


GREY_SIDE = 28
"""Up to which side "cpu" trains a U-Net of width 32, and every network for its full number of passes."""
COLOUR_SIDE = 40
"""Up to which side it trains a transformer beyond that; an image of twice the side has four times the tokens."""
PHOTOGRAPHS: dict[str, Any] = {
    "preset": "brief", "n_samples": 1500, "n_losses": 1200, "place": 4,
    "cmi_radii": (1, 2, 3, 5), "cmi_times": (0.05, 0.2, 0.4, 0.7),
}  # fmt: skip
"""What "cpu" is beyond 28 pixels, where a network has more to learn from images that take it longer: few passes, by the
preset that learns most from them (studies/LOG.md), and the time for them from samples, searches and CMI."""
KINDS: dict[str, dict[str, Any]] = {
    "transformer": {
        "global_network": "dit-small", "cheap_globals": ("dit-coarse",), "global_width": 96,
        "global_epochs": 1.7, "local_epochs": 1,
    },
    "unet": {"global_width": 48, "global_epochs": 3, "local_epochs": 1.5},
}  # fmt: skip
"""By kind of global network.  Of CIFAR-10 a transformer learns more in the same time (docs/results/cifar10.md)."""
GREY_IMAGES, COLOUR_IMAGES, COLOUR_PIXELS = 55_000, 45_000, 32
"""What the passes are for: MNIST's training images up to GREY_SIDE, beyond CIFAR-10's, of so many pixels a side."""
MOST_PASSES = 130
"""Over however few images: as many as digits take."""
CMI_SIDE = 32
LARGE: dict[str, Any] = {"cmi_crop": CMI_SIDE, "control": False}
"""Beyond COLOUR_SIDE: CMI of a central square, since that of 128 pixels a side in colour would take 217 GiB; and no
control, whose kernels are as wide as the image: at 64 pixels it costs twice the global network, at 128 ten times."""
HUGE_SIDE, LEAST_SAMPLES = 64, 500
"""Beyond this side fewer samples, by their pixels, down to so many."""
GUIDED: dict[str, Any] = {"guidance": 2.0, "n_samples": 1000, "place": 2}
"""What a transformer of photographs known to have labels is besides: told them, and guided.  A few passes then draw
objects that can be named; two calls a step take the time of a third of the samples, and of half of a search."""
VARYING = {
    "cpu": (*PHOTOGRAPHS, *KINDS["transformer"], *LARGE, "spacing"),
    "smoke": ("control", "limit", "budget"),
}
"""Options that a size sets by the images."""


def bounded(
    size: str, side: int, network: str | None = None, told: bool = False, train: int | None = None
) -> dict[str, Any]:
    """What keeps the promise of a size whatever the images: smoke of larger ones takes a few of them, and no control,
    whose every pixel sees the whole image; of photographs, "cpu" leaves more of its time to the global network, a
    transformer where tokens are few, and beyond 32 pixels starts steps earlier.  It shows networks so many images,
    however many there are.  ``network``: the global one that was asked for; ``told``: networks may be told the class;
    ``train``: how many training images there are."""
    if size == "cpu" and side > GREY_SIDE:
        usual = "transformer" if side <= COLOUR_SIDE else "unet"
        kind = kind_and_size(network or usual)[0]
        guided = GUIDED if told and kind == "transformer" else {}
        found = {**PHOTOGRAPHS, **KINDS[kind], **guided, "spacing": _spacing(side)}
        if side > COLOUR_SIDE:
            fewer = round(found["n_samples"] * min(1.0, (HUGE_SIDE / side) ** 2))
            found |= {**LARGE, "n_samples": max(fewer, LEAST_SAMPLES)}
        # a larger image takes longer, by its pixels
        return found | _passes(found, COLOUR_IMAGES * min(1.0, (COLOUR_PIXELS / side) ** 2), train)
    if size == "cpu":
        return _passes(SIZES[size], GREY_IMAGES, train)
    if size != "smoke" or side <= SMOKE_SIDE:
        return {}
    # local networks cost about as much there as its tiny global one: any budget below would refuse the run
    return {"control": False, "limit": max(SMOKE_LEAST, SMOKE_PIXELS // side**2), "budget": 1.0}


def _passes(usual: dict[str, Any], images: float, train: int | None) -> dict[str, float]:
    """Passes over ``train`` images that show a network as many as the usual ones over ``images`` do: the usual ones
    would teach it nothing of a small set, and take days over a large one."""
    share = images / (train or images)
    names = ("global_epochs", "local_epochs")
    return {name: float(f"{min(usual[name] * share, MOST_PASSES):.3g}") for name in names}


def _spacing(side: int) -> str:
    """Of start times: those even ones suit 32 pixels; an image of twice the side shows its large shapes through twice
    the noise (:func:`phasewise.time_grid`)."""
    doublings = min(max(round(math.log2(side / 32)), 0), 3)
    return f"shift{2**doublings}" if doublings else "uniform"


SMOKE_STEPS = 8
"""Steps of a model's own schedule in smoke."""
LOCAL_SIDE = 28
"""Up to which side closed-form local denoisers are made: each solves for every pixel at every time."""


def of_models(side: int, several: bool, distil: bool = False) -> dict[str, Any]:
    """What is usual where networks are taken as they are: nothing that is there for training, closed-form local
    denoisers of small images, how far the network sees, no CMI, which asks the images alone, and no clones.  Its steps
    stay those of a scheduler: searching for better ones samples it some hundred times.

    ``several``: where there are further networks, losses on held-out images choose; a distance from the reference would
    never call a network better than it.
    """
    students = {"control": False, "cmi": False, "reach": True, "clone_images": 0}
    if distil:  # local and coarse students of the network are what they are in any run
        return students | ({"penalty": "kl"} if several else {})
    radii = tuple(r for r in (1, 2, 3) if r < side) if side <= LOCAL_SIDE else ()
    found: dict[str, Any] = {"radii": radii, "cheap_globals": (), "place": 0, **students}
    return found | ({"penalty": "kl"} if several else {})


class NamedSet(NamedTuple):
    """Longer side of its images in pixels, and how many of them there are to train on."""

    side: int
    train: int


NAMED = {
    "digits": NamedSet(8, 1258), "mnist": NamedSet(28, 55_000), "fashion_mnist": NamedSet(28, 55_000),
    "cifar10": NamedSet(32, 45_000), "trashnet64": NamedSet(64, 2002), "clothing128": NamedSet(128, 3069),
}  # fmt: skip
"""So that a config of a named set needs no reading.  Another set under its name is taken to be as large."""


def known_size(asked: DataOptions) -> tuple[int, int] | None:
    """(H, W) of these images where it is known without reading any: of named sets, and where it is asked for."""
    named = NAMED.get(asked.data)
    size = None if named is None else (named.side, named.side)
    for given in (asked.crop, asked.resize):
        if given not in (None, "square"):
            size = (given[0], given[-1])
    return size
