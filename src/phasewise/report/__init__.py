"""Records on disk -> figures and one self-contained HTML page. Reads a run folder and measures nothing itself."""

from __future__ import annotations

from phasewise.report.html import build_report

__all__ = ["build_report"]
