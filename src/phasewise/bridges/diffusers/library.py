"""Classes of diffusers by name, and the error where it is not installed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from phasewise.errors import PhasewiseError

INSTALL = "pip install 'phasewise[diffusers]'"


def library() -> ModuleType:
    """The package; PhasewiseError where it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise PhasewiseError(f"this needs diffusers ({error}); {INSTALL}") from error
    return diffusers


def model_class(name: str) -> Any:
    """A class of networks of diffusers itself; PhasewiseError for another, since code of others is not run."""
    from diffusers import ModelMixin

    return _class(name, ModelMixin, "network")


def scheduler_class(name: str) -> Any:
    """A scheduler of diffusers itself."""
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    return _class(name, SchedulerMixin, "scheduler")


def _class(name: str, base: type, what: str) -> Any:
    found = getattr(library(), str(name), None) if str(name).isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PhasewiseError(
            f"diffusers has no {what} {str(name)[:60]!r}; code from elsewhere is not run: build it in Python, and use "
            "pw.wrap or from_diffusers"
        )
    return found
