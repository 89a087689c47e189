"""Which of our solvers takes the steps that a scheduler of diffusers takes."""

from __future__ import annotations

from typing import Any

FLOW = "FlowMatch"


def solver_of(scheduler: Any) -> str | None:
    """Name of the solver that makes the same steps, or None where none of ours does.

    Euler's steps in sigma are DDIM's (Song et al. 2021, arXiv 2010.02502, eq. 13), its ancestral steps with full churn
    are DDPM's, and on a flow's path the Euler step is DDIM's as well.  Heun's are the same to second order.
    """
    name, config = type(scheduler).__name__, dict(getattr(scheduler, "config", {}))
    if name in ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"):
        stochastic = str(config.get("algorithm_type", "")).startswith("sde")
        if int(config.get("solver_order", 2)) == 1:
            return "ancestral" if stochastic else "ddim"
        return "sde_dpmpp_2m" if stochastic else "dpmpp_2m"
    if name == f"{FLOW}EulerDiscreteScheduler" and config.get("stochastic_sampling"):
        return None
    return {
        "DDIMScheduler": "ddim",
        "DDPMScheduler": "ancestral",
        "EulerDiscreteScheduler": "ddim",
        "EDMEulerScheduler": "ddim",
        "EulerAncestralDiscreteScheduler": "ancestral",
        "HeunDiscreteScheduler": "heun",
        f"{FLOW}EulerDiscreteScheduler": "ddim",
        f"{FLOW}HeunDiscreteScheduler": "heun",
    }.get(name)
