"""The queue: every job in its order, what it needs and where its result belongs; for a large GPU, and for two cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from studies.gpu.fronts import front
from studies.gpu.place import JUDGES, Place
from studies.gpu.recipe import PUBLISHED, ROWS, read_cmi
from studies.gpu.sizes import Amount, FrontSize, on_two_cores
from studies.gpu.timing import time_set, time_windows
from studies.gpu.training import (
    Make,
    Shipped,
    borrow_judge,
    dit_of,
    take_locals,
    take_shipped,
    teach_windows,
    train_judge,
    train_locals,
    train_network,
    unet,
    unet_of,
)

Work = Callable[[Place, str, str], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One job: ``work(place, set, name)``.

    Attributes:
        data: the set it looks at; its folder must lie in --data-dir.  A job that times takes what is shipped, or noise.
        needs: jobs whose networks it reads.
        minutes: about how long, alone on one large GPU, or on two cores.
        belongs: what the result is for.
    """

    data: str
    name: str
    work: Work
    minutes: float
    needs: tuple[str, ...] = ()
    belongs: str = ""

    @property
    def title(self) -> str:
        return f"{self.data}/{self.name}"

    @property
    def recipe(self) -> int:
        """Which number of it this is, on two cores."""
        return FRONTS if self.name.startswith("front-") else RECIPE


Trained = Mapping[str, tuple[Make, Amount, float]]
"""By name: what is built, how long it is trained, about how many minutes that takes."""
Timed = tuple[Amount, float]
Judge = tuple[str, int, int, float]
"""Architecture, passes, width and minutes."""


RECIPE, FRONTS = 7, 9
"""Numbers of the trainings and judges of two cores, and of their fronts: what another one made is not taken for this
one's."""
LENDER = "cifar10"
"""The shipped set whose judges photographs of clothes borrow."""
FRONTS_PAGE = "docs/results/photographs.md"
"""Where ``--summary --docs`` writes the tables of all fronts."""
SHIPPED = ("mnist", "fashion_mnist", "cifar10", "cifar10-dit")
"""Sets that come with the package, and are timed."""
TRANSFORMERS = {"dit": Shipped("cifar10-dit", "global"), "dit-coarse": Shipped("cifar10-dit", "dit-coarse")}
"""Those that come with the package: transformers of clothes begin as these on two cores."""


def _set(
    data: str, networks: Trained, judges: tuple[Judge, Judge] | None, locals_: Timed, windows: Timed | None = None,
    begins: Mapping[str, Shipped] | None = None,
) -> list[Job]:  # fmt: skip
    """The jobs of one set of images, networks first.  ``judges``: None borrows them.  ``begins``: whose weights
    networks begin with, by name."""
    page = FRONTS_PAGE if "clothing" in data else f"src/phasewise/pretrained/{data}"
    jobs = []
    for name, (make, amount, minutes) in networks.items():
        jobs.append(Job(data, name, train_network(make, amount, (begins or {}).get(name)), minutes, belongs=page))
    for k, name in enumerate(JUDGES.values()):
        work, minutes = borrow_judge(LENDER), 0.1
        if judges is not None:
            architecture, passes, width, minutes = judges[k]
            work = train_judge(architecture, passes, width)
        jobs.append(Job(data, name, work, minutes, belongs=page))
    jobs.append(Job(data, "locals", train_locals(locals_[0]), locals_[1], (f"{data}/global",), page))
    if windows:
        jobs.append(Job(data, "dit-windows", teach_windows(windows[0]), windows[1], (f"{data}/dit",), page))
    return jobs


def _fronts(
    data: str, sizes: Mapping[str, tuple[FrontSize, float]], cheap: tuple[str, ...] = ("coarse", "small")
) -> list[Job]:
    """``cheap``: the smaller U-Nets that the set has."""
    needs = {"unet": ("global", *cheap, "locals"), "dit": ("dit", "dit-coarse", "dit-windows", "locals")}
    return [
        Job(
            data, f"front-{kind}", front(kind, size), minutes,
            tuple(f"{data}/{n}" for n in (*needs[kind], *JUDGES.values())), FRONTS_PAGE,
        )
        for kind, (size, minutes) in sizes.items()
    ]  # fmt: skip


def _on_gpu(
    data: str, width: int, seconds: float, passes: int | None, *, transformer: float = 0.0,
    cheap: tuple[str, ...] = ("coarse",), windows: bool = False,
) -> list[Job]:  # fmt: skip
    """A set at a large GPU's size; every training by the clock, judges by ``passes``: None borrows them."""

    def timed(make: Make, seconds: float) -> tuple[Make, Amount, float]:
        return make, Amount(seconds), seconds / 60

    networks = {"global": timed(unet(width), seconds)}
    if transformer:
        networks |= {
            "dit": timed(dit_of("medium"), transformer),
            "dit-coarse": timed(dit_of("coarse"), transformer / 2),
        }
    networks |= {size: timed(unet_of(size), seconds / 2) for size in cheap}
    judges = None if passes is None else (("residual", passes, 32, 1.0), ("mixer", passes, 32, 1.0))
    return _set(data, networks, judges, (Amount(seconds / 2), seconds / 120), (Amount(60), 1.0) if windows else None)


def _on_cores(
    data: str, images: Mapping[str, tuple[int, float]], fronts: Mapping[str, tuple[FrontSize, float]]
) -> list[Job]:  # fmt: skip
    """A set at the size of two cores, front and all; every training by so many images, and about so many minutes."""
    makes = {
        "global": unet(32), "coarse": unet_of("coarse"), "small": unet(16),
        "dit": dit_of("small"), "dit-coarse": dit_of("coarse"),
    }  # fmt: skip
    amounts = {name: (Amount(images=count), minutes) for name, (count, minutes) in images.items()}
    networks = {name: (make, *amounts[name]) for name, make in makes.items()}
    jobs = _set(data, networks, None, amounts["locals"], amounts["windows"], TRANSFORMERS)
    return [*jobs, *_fronts(data, fronts)]


def _of_shipped(data: str, windows: tuple[int, float], fronts: Mapping[str, tuple[FrontSize, float]]) -> list[Job]:
    """On two cores: networks of both kinds and judges that come with the package, and the fronts of both.  ``windows``:
    images and minutes."""
    page = FRONTS_PAGE
    taken = {name: take_shipped(Shipped(LENDER, name)) for name in ("global", "coarse")}
    taken |= {name: take_shipped(network) for name, network in TRANSFORMERS.items()}
    taken |= {"locals": take_locals(LENDER), **dict.fromkeys(JUDGES.values(), borrow_judge(LENDER))}
    jobs = [Job(data, name, work, 0.1, belongs=page) for name, work in taken.items()]
    count, minutes = windows
    jobs.append(Job(data, "dit-windows", teach_windows(Amount(images=count)), minutes, (f"{data}/dit",), page))
    return [*jobs, *_fronts(data, fronts, ("coarse",))]


def _timings() -> list[Job]:
    """What costs minutes and trains nothing: shipped sets at every batch size."""
    page = "docs/results/networks.md"
    return [
        Job(data, f"timing-{batch}", time_set(batch), 5.0, belongs=page) for data in SHIPPED for batch in (1, 64, 1024)
    ]


def _windows() -> list[Job]:
    """Attention by number of tokens."""
    page = "docs/results/networks.md"
    return [Job("windows", f"{side**2}", time_windows(side), 3.0, belongs=page) for side in (8, 16, 32, 64, 128)]


def _recipes() -> list[Job]:
    """What the published estimate of CMI reads at its full length: memory or information?"""
    return [
        Job("mnist", f"recipe-{row}-{radius}", read_cmi(row, radius), 20.0, belongs="docs/results/cmi.md")
        for radius in PUBLISHED
        for row in ROWS
    ]


def _by_title(jobs: Iterable[Job]) -> dict[str, Job]:
    return {job.title: job for job in jobs}


JOBS: dict[str, dict[str, Job]] = {
    "gpu": _by_title((
        *_on_gpu("cifar10", 48, 360, 40, transformer=400, cheap=("coarse", "small"), windows=True),
        *_fronts("cifar10", dict.fromkeys(("unet", "dit"), (FrontSize(3000, 10_000, 30), 4.0))),
        *_on_gpu("mnist", 32, 240, 8, transformer=120),
        *_on_gpu("fashion_mnist", 32, 240, 15),
        *_fronts("mnist", {"unet": (FrontSize(3000, 10_000, 30), 4.0)}, ("coarse",)),
        *_fronts("fashion_mnist", {"unet": (FrontSize(3000, 10_000, 30), 4.0)}, ("coarse",)),
        *_timings(),
        *_on_gpu("clothing64", 48, 70, None, transformer=70, cheap=("coarse", "small"), windows=True),
        *_on_gpu("clothing128", 48, 110, None, transformer=100, cheap=("coarse", "small"), windows=True),
        *_on_gpu("clothing32", 48, 50, None, transformer=60, cheap=("coarse", "small"), windows=True),
        *_fronts("clothing128", dict.fromkeys(("unet", "dit"), (FrontSize(1000, 3000, 14), 4.0))),
        *_fronts("clothing64", dict.fromkeys(("unet", "dit"), (FrontSize(2000, 3000, 24), 4.0))),
        *_fronts("clothing32", dict.fromkeys(("unet", "dit"), (FrontSize(2000, 3000, 24), 4.0))),
        *_recipes(),
        *_windows(),
    )),
    "cpu": _by_title((
        *_on_cores(
            "clothing32",
            {"global": (120_000, 4), "coarse": (60_000, 1), "small": (80_000, 2), "dit": (60_000, 6),
             "dit-coarse": (50_000, 3), "locals": (50_000, 3), "windows": (8_000, 2)},
            {"unet": (on_two_cores(500, 1000, 8, (340, 14)), 4), "dit": (on_two_cores(500, 1000, 6, (340, 14)), 10)},
        ),
        *_on_cores(
            "clothing64",
            {"global": (55_000, 7), "coarse": (40_000, 3), "small": (40_000, 4), "dit": (14_000, 11),
             "dit-coarse": (20_000, 5), "locals": (25_000, 5), "windows": (2_000, 3)},
            {"unet": (on_two_cores(256, 400, 8, (340, 12)), 9), "dit": (on_two_cores(160, 400, 5, (160, 10)), 27)},
        ),
        *_on_cores(
            "clothing128",
            {"global": (28_000, 14), "coarse": (15_000, 3), "small": (16_000, 5), "dit": (22_000, 19),
             "dit-coarse": (17_000, 5), "locals": (14_000, 8), "windows": (2_000, 3)},
            {"unet": (on_two_cores(100, 250, 5, (128, 10), (2,)), 40),
             "dit": (on_two_cores(100, 250, 10, (128, 10), (2, 7), own=0), 60)},
        ),
        *_of_shipped(
            "cifar10", (12_000, 3),
            {"unet": (on_two_cores(300, 800, 6, (250, 12)), 5), "dit": (on_two_cores(300, 800, 5, (250, 12)), 9)},
        ),
    )),
}  # fmt: skip
"""By size and title: in the order in which a borrowed half hour should do them; on two cores set after set."""
