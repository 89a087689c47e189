"""How figures of studies look, the report's settings, and how they become files."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure

from phasewise.report.style import RC

mpl.use("Agg")


def style() -> None:
    mpl.rcParams.update(RC)


def png(figure: Figure, dpi: int = 140) -> bytes:
    """The figure as a PNG file; it is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
