"""Every study there is: a new one is a module beside this one and a name in the list."""

from __future__ import annotations

from typing import Any

from studies.boundary import BoundaryStudy
from studies.bypass import Bypass
from studies.closed_forms import ClosedForms
from studies.cmi import CMIEstimators, CMIExact, CMIImages, CMIRecipe
from studies.designs import Designs
from studies.exact_optimum import ExactOptimum
from studies.field import Field
from studies.front import Front
from studies.global_fid import GlobalFID
from studies.gpu import GPUQueue
from studies.gpu_sampling import GPUSampling
from studies.guests import Guests
from studies.guidance import Guidance
from studies.late_expert import LateExpert
from studies.leak import Leak
from studies.locality import LocalityPays
from studies.members import Members
from studies.placed import Placed
from studies.plan import PlanStudy
from studies.plans_needed import PlansNeeded
from studies.random_search import RandomSearch
from studies.readme_picture import ReadmePicture
from studies.resolution import Resolution
from studies.sensitivity import Sensitivity
from studies.speed import Speed
from studies.study import Study
from studies.theory import Theory
from studies.train import TrainGlobal, TrainLocals
from studies.transitions import TransitionsStudy
from studies.window_against_side import WindowAgainstSide

STUDIES: dict[str, type[Study[Any]]] = {
    study.name: study
    for study in (
        Designs,
        ClosedForms,
        ExactOptimum,
        LocalityPays,
        Resolution,
        PlanStudy,
        PlansNeeded,
        Front,
        Members,
        Field,
        Placed,
        BoundaryStudy,
        RandomSearch,
        CMIImages,
        CMIExact,
        CMIEstimators,
        CMIRecipe,
        Sensitivity,
        Speed,
        GPUSampling,
        ReadmePicture,
        TrainGlobal,
        TrainLocals,
        Leak,
        LateExpert,
        Guidance,
        GlobalFID,
        GPUQueue,
        Guests,
        Theory,
        TransitionsStudy,
        Bypass,
        WindowAgainstSide,
    )
}
