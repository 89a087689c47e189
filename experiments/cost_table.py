"""FLOPs and wall-clock of every default denoiser at 28x28, timed in one interleaved run; held-out loss beside it.

    python experiments/cost_table.py [RUN_FOLDER]

With a run folder (``phasewise run --data mnist ...``) its trained denoisers are used and their test loss at five noise
times is printed; otherwise untrained ones, cost only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import phasewise as pw
from phasewise.pipeline import read_config
from phasewise.pipeline.stages import denoiser_names
from phasewise.results import LossTable

SHOWN = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def members(folder: Path | None) -> dict[str, pw.Denoiser]:
    if folder is None:
        shape = (1, 28, 28)
        return {"global": pw.UNetDenoiser(shape), **{f"r{r}": pw.LocalDenoiser(shape, r) for r in range(1, 13)}}
    config = read_config(folder)
    assert config is not None, f"{folder} holds no run"
    return {name: pw.load_denoiser(folder / "models" / name) for name in denoiser_names(config)}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    nets = members(folder)
    shape = nets["global"].image_shape
    flops = {name: pw.count_flops(d, shape) / 1e6 for name, d in nets.items()}
    ms = pw.metrics.measure_ms(nets, shape, batch=64, repeats=15)
    table = LossTable.load(folder / "records" / "losses.json") if folder else None
    rows = [] if table is None else [int(np.argmin(np.abs(table.times - t))) for t in SHOWN]
    head = "".join(f"  loss t={table.times[k]:.2g}" for k in rows) if table else ""
    print(f"{'name':<8} {'MFLOP':>7} {'ratio':>7} {'ms/image':>9} {'ratio':>7}{head}")
    for name in nets:
        losses = "" if table is None else "".join(f"  {table.loss[k, table.column(name)]:>11.3f}" for k in rows)
        print(
            f"{name:<8} {flops[name]:>7.1f} {flops[name] / flops['global']:>7.3f} "
            f"{ms[name][0]:>9.4f} {ms[name][0] / ms['global'][0]:>7.3f}{losses}"
        )
    if table:
        error = table.loss_stderr.max()
        print(f"losses: squared error per image on {table.n} test images, largest standard error {error:.3f}")


if __name__ == "__main__":
    main()
