"""A hybrid put over a network in place, in the form of diffusers' caches: the module stays what it is."""

from __future__ import annotations

import threading
from typing import Any

from torch import nn

from phasewise import checks
from phasewise.bridges.diffusers.answers import Answers, interface_of, members_of, network_of
from phasewise.bridges.diffusers.model import DiffusersDenoiser, image_shape_of
from phasewise.bridges.diffusers.out import as_module
from phasewise.denoisers import Denoiser
from phasewise.denoisers.base import a_denoiser
from phasewise.errors import PhasewiseError

from diffusers.hooks import HookRegistry, ModelHook  # isort: skip

NAME = "phasewise_hybrid"


class HybridHook(ModelHook):
    """Answers in the module's place at the steps of other members."""

    def __init__(self, answers: Answers, own: tuple[DiffusersDenoiser, ...]) -> None:
        super().__init__()
        self.answers, self.own = answers, own
        self._within = threading.local()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hidden = self.fn_ref.original_forward
        if getattr(self._within, "now", False):  # a member that asks this very module, as guidance does
            return hidden(*args, **kwargs)
        self._within.now = True
        try:
            return self.answers(args, kwargs, self.own, hidden)
        finally:
            self._within.now = False


@checks.checked(module=as_module, hybrid=a_denoiser, member=checks.text)
def apply_hybrid(module: nn.Module, hybrid: Denoiser, *, member: str | None = None) -> None:
    """Let ``hybrid`` say who takes which step of ``module``: in a pipeline or out of it, until :func:`remove_hybrid`.

    Args:
        module: a network of diffusers, e.g. ``pipe.transformer``; its weights stay as they are.
        hybrid: with a member made of this very network by ``from_diffusers``; that member's steps are the module's own.
        member: name of the member that the module stands for, where it is a copy (a hybrid read from a folder).

    The time is read from ``timestep``.  Members are no part of the module: they follow it to its device when asked.

    Raises PhasewiseError where a hybrid is applied already, no member is this network, or the named one is of another
    class or image shape.
    """
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(NAME) is not None:
        raise PhasewiseError("a hybrid is applied to this network already; remove_hybrid(module) first")
    networks = {name: network_of(m)[0] for name, m in members_of(hybrid).items()}
    own = _the_same(module, networks) if member is None else _stood_for(module, networks, member)
    shape = image_shape_of(module)
    if shape is not None and shape != hybrid.image_shape:
        raise PhasewiseError(f"the {type(module).__name__} is for images {shape}, the hybrid for {hybrid.image_shape}")
    hook = HybridHook(Answers(hybrid, interface_of(own[0])), own)
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, NAME)


@checks.checked(module=as_module)
def remove_hybrid(module: nn.Module) -> None:
    """Undo :func:`apply_hybrid`: the module answers every step itself again.  PhasewiseError where there is nothing to
    undo."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is None or registry.get_hook(NAME) is None:
        raise PhasewiseError("no hybrid is applied to this network; apply_hybrid(module, hybrid) puts one there")
    registry.remove_hook(NAME, recurse=False)


def _the_same(module: nn.Module, networks: dict[str, DiffusersDenoiser | None]) -> tuple[DiffusersDenoiser, ...]:
    own = tuple(n for n in networks.values() if n is not None and n.module is module)
    if not own:
        raise PhasewiseError(
            f"no member of the hybrid ({', '.join(networks)}) is made of this very network; if one is a copy of it, "
            "say which: member=NAME"
        )
    return own


def _stood_for(
    module: nn.Module, networks: dict[str, DiffusersDenoiser | None], member: str
) -> tuple[DiffusersDenoiser, ...]:
    found = networks.get(member)
    if found is None or type(found.module) is not type(module):
        made = "no network of diffusers" if found is None else f"a {type(found.module).__name__}"
        raise PhasewiseError(
            f"the module is a {type(module).__name__}, the member {member!r} is {made}; members that are networks of "
            f"diffusers: {', '.join(n for n, d in networks.items() if d is not None) or 'none'}"
        )
    return (found,)
