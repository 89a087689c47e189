"""The queue: every job in its order, what it needs, and where its result belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studies.gpu.fronts import front
from studies.gpu.place import Place
from studies.gpu.timing import time_set, time_windows
from studies.gpu.training import dit_of, teach_windows, train_judge, train_locals, train_network, unet, unet_of

Work = Callable[[Place, str, str], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One job: ``work(place, set, name)``.

    Attributes:
        data: the set it looks at; its folder must lie in --data-dir.  A job that times takes what is shipped, or noise.
        needs: jobs whose networks it reads.
        minutes: about how long, alone on one large GPU.
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


def _set(
    data: str, network: Callable[[Any], Any], seconds: float, judges: int, *, transformer: float = 0.0,
    cheap: tuple[str, ...] = ("coarse",), windows: int = 0,
) -> list[Job]:  # fmt: skip
    """The jobs of one set of images, networks first."""
    shipped = f"src/phasewise/pretrained/{data}" if "clothing" not in data else "docs/results/resolution.md"
    jobs = [Job(data, "global", train_network(network, seconds), seconds / 60, belongs=shipped)]
    if transformer:
        jobs.append(Job(data, "dit", train_network(dit_of("medium"), transformer), transformer / 60, belongs=shipped))
        jobs.append(
            Job(
                data, "dit-coarse", train_network(dit_of("coarse"), transformer / 2), transformer / 120, belongs=shipped
            )
        )
    for size in cheap:
        jobs.append(Job(data, size, train_network(unet_of(size), seconds / 2), seconds / 120, belongs=shipped))
    jobs.append(Job(data, "judge", train_judge("residual", judges), 1.0, belongs=shipped))
    jobs.append(Job(data, "judge-unseen", train_judge("mixer", judges), 1.0, belongs=shipped))
    jobs.append(Job(data, "locals", train_locals(seconds / 2), seconds / 120, (f"{data}/global",), shipped))
    if windows:
        jobs.append(Job(data, "dit-windows", teach_windows(windows), 1.0, (f"{data}/dit",), shipped))
    return jobs


def _fronts(data: str, n_first: int, n_final: int, trials: int, kinds: tuple[str, ...] = ("unet", "dit")) -> list[Job]:
    needs = {"unet": ("global", "judge", "judge-unseen"), "dit": ("dit", "dit-windows", "judge", "judge-unseen")}
    page = "docs/results/resolution.md" if "clothing" in data else "docs/results/cifar10.md"
    return [
        Job(
            data,
            f"front-{kind}",
            front(kind, n_first, n_final, trials),
            3.0,
            tuple(f"{data}/{n}" for n in needs[kind]),
            page,
        )
        for kind in kinds
    ]


def _timings() -> list[Job]:
    """What costs minutes and trains nothing: shipped sets at every batch size, then attention by number of tokens."""
    page = "docs/results/networks.md"
    sets = [
        Job(data, f"timing-{batch}", time_set(batch), 5.0, belongs=page)
        for data in ("mnist", "fashion_mnist")
        for batch in (1, 64, 1024)
    ]
    layers = [Job("windows", f"{side**2}", time_windows(side), 3.0, belongs=page) for side in (8, 16, 32, 64, 128)]
    return [*sets, *layers]


JOBS: dict[str, Job] = {
    job.title: job
    for job in (
        *_set("cifar10", unet(48), 360, 40, transformer=400, cheap=("coarse", "small"), windows=1500),
        *_set("mnist", unet(32), 240, 8, transformer=120),
        *_set("fashion_mnist", unet(32), 240, 15),
        *_set("clothing64", unet(48), 70, 40, transformer=70, cheap=("coarse", "small"), windows=400),
        *_set("clothing128", unet(48), 110, 40, transformer=100, cheap=("coarse", "small"), windows=300),
        *_set("clothing32", unet(48), 50, 40, transformer=60, cheap=("coarse", "small"), windows=500),
        *_fronts("cifar10", 3000, 10_000, 30),
        *_fronts("clothing32", 2000, 3000, 24),
        *_fronts("clothing64", 2000, 3000, 24),
        *_fronts("clothing128", 1000, 3000, 14),
        *_fronts("mnist", 3000, 10_000, 30, ("unet",)),
        *_fronts("fashion_mnist", 3000, 10_000, 30, ("unet",)),
        *_timings(),
    )
}
"""By title, in the order in which a borrowed half hour should do them."""
