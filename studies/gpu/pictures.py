"""What a front's schedules look like: real images, then the first samples of those that its tables name, unselected."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from phasewise.files import write_bytes
from phasewise.pipeline.recording import to_uint8
from phasewise.report.pictures import picture, shrink, stack, tile
from phasewise.results import Array
from studies.gpu.bench import Bench, plan_of
from studies.gpu.looks import SEED
from studies.gpu.verdict import Row, named

SAMPLES_FILE = "samples.png"
"""In the folder of a front's answers."""
SHOWN, COLUMNS, GAP = 8, 4, 6


def draw_samples(bench: Bench, finals: Sequence[Row]) -> None:
    """Real test images, best, rival, hybrid and no network, each once, side by side, from one noise."""
    rows = list({id(row): row for row in named(finals).values()}.values())
    parts = [bench.data.test[:SHOWN], *(bench.batch_of(plan_of(bench, row), SHOWN, SEED) for row in rows)]
    canvases = [_tiled(part, bench.data.pixel_range) for part in parts]
    content = picture(stack(canvases, axis=1, pad=GAP)).png
    write_bytes(bench.place.folder(bench.name, f"front-{bench.kind}") / SAMPLES_FILE, content)


def _tiled(images: Tensor, pixel_range: tuple[float, float]) -> Array:
    return tile(shrink(to_uint8(images.float().cpu(), pixel_range).numpy()), COLUMNS)
