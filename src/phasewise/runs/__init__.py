"""A run folder, described once: its layout, its config and members, its records as typed, lazy attributes.

    run = pw.open_run("runs/digits")
    run.config.train.radii, run.losses.gap, run.schedules["hybrid"], run.hybrid()

Loaded on first use, so that the command line's ``--help`` does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phasewise.runs.config import RunConfig as RunConfig
    from phasewise.runs.config import make_config as make_config
    from phasewise.runs.members import MEMBER_KINDS as MEMBER_KINDS
    from phasewise.runs.members import Member as Member
    from phasewise.runs.members import MemberKind as MemberKind
    from phasewise.runs.members import register_member_kind as register_member_kind
    from phasewise.runs.run import Run as Run
    from phasewise.runs.run import open_run as open_run

_HOMES = {
    "config": ("RunConfig", "make_config"),
    "members": ("MEMBER_KINDS", "Member", "MemberKind", "register_member_kind"),
    "run": ("Run", "open_run"),
}
__all__ = [
    "MEMBER_KINDS",
    "Member",
    "MemberKind",
    "Run",
    "RunConfig",
    "make_config",
    "open_run",
    "register_member_kind",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"phasewise.runs.{module}"), name)
    raise AttributeError(f"module 'phasewise.runs' has no attribute {name!r}")
