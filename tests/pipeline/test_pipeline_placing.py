"""In a run the hybrid and its rivals are sampled on grids that were searched for, at costs that are fair."""

import shutil

import pytest
import torch

from phasewise.errors import PhasewiseError
from phasewise.pipeline import make_config, run_pipeline, samplers
from phasewise.results import HybridSchedule, PriceList
from phasewise.runs import Run, open_run
from phasewise.scheduling import baselines, schedule_from_assignment

PLACED = {"hybrid", "global_cheap", "global_placed", "stitched", "window", "window_gap"}


def test_the_hybrid_and_its_rivals_are_placed(smoke_run):
    run = open_run(smoke_run)
    placed = {n for n, s in run.schedules.items() if s.label.endswith(baselines.PLACED)}
    assert placed == PLACED & set(run.schedules)
    hybrid, full = run.schedules["hybrid"], run.schedules["global"]
    assert full.times == tuple(run.prices.times), "what penalties count from stays on the run's own grid"
    for name in ("global_cheap", "global_placed", "stitched"):
        plan = run.schedules[name]
        assert plan.mflop >= hybrid.mflop * (1 - 1e-6) or (name == "global_cheap" and len(plan.times) == 4)
        assert plan.assignment[0] == "wiener", "the first step is free for every rival"
        assert name in run.explanations
        assert "on other noise" in run.explanations[name][0]
    assert any("grids by the distance of 150 samples" in line for line in run.explanations["hybrid"])
    for name, plan in run.schedules.items():
        assert (
            name == "closed_only"
            or all(plan.assignment[k : k + 3] != ("wiener",) * 3 for k in range(len(plan.times)))
            or not plan.label
        )
        assert cost(run.prices, plan) == pytest.approx(plan.mflop)


def cost(prices: PriceList, plan: HybridSchedule) -> float:
    flops = dict(zip(prices.names, prices.flops / 1e6, strict=True))
    return float(sum(flops[n] for n in plan.assignment))  # exp_ab2: one call a step


@pytest.mark.parametrize("solver", ["exp_ab2", "sde_dpmpp_2m"])
def test_a_run_with_reuse_is_placed_too(smoke_run, tmp_path, solver):
    folder, said = shutil.copytree(smoke_run, tmp_path / "run"), []
    config = make_config(8, "smoke", reuse=True, solver=solver)
    run_pipeline(config, folder, update=True, command="schedule", say=said.append)
    run = open_run(folder)
    assert {"pixel", "carried", "deep"} <= {*run.prices.names, *run.prices.reuse.names}
    assert run.schedules["global_placed"].label.endswith(baselines.PLACED)
    assert any({"carried", "deep"} & set(who) for who in run.fronts["frechet"].assignments)
    with pytest.raises(PhasewiseError, match="--reuse adds is kept from step to step, but heun"):
        run_pipeline(make_config(8, "smoke", reuse=True, solver="heun"), tmp_path / "other", say=said.append)
    assert not (tmp_path / "other").exists()


def test_a_run_trained_in_half_precision_samples_in_it(smoke_run, tmp_path, monkeypatch):
    """Prices, searches and judged samples are those of products in bfloat16."""
    folder = shutil.copytree(smoke_run, tmp_path / "run")
    plain, half = open_run(folder), make_config(8, "smoke", preset="bf16", reuse=True)
    run = Run(folder)
    found = samplers.samplers(run, ["global", "r1", "wiener"], half)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for name, denoiser in found.items():
            exact, rounded = plain.denoiser(name)(x, 0.5), denoiser(x, 0.5)
            assert torch.equal(exact, rounded) == (name == "wiener")
            assert torch.allclose(exact, rounded, atol=0.05)
        full = samplers.samplers(run, ["global"], make_config(8, "smoke"))["global"]
        assert torch.equal(full(x, 0.5), plain.denoiser("global")(x, 0.5))
    seen: list[str] = []
    real = samplers.for_inference

    def noted(denoiser, *, precision):
        seen.append(precision)
        return real(denoiser, precision=precision)

    monkeypatch.setattr(samplers, "for_inference", noted)
    run_pipeline(half, folder, update=True, command="schedule", say=lambda _: None)
    assert set(seen) == {"bfloat16"}, "priced and searched"
    seen.clear()
    run_pipeline(half, folder, update=True, command="evaluate", say=lambda _: None)
    assert set(seen) == {"bfloat16"}, "sampled and judged"
    assert "hybrid" in open_run(folder).evaluations


def test_a_run_without_placing_keeps_the_even_grid(smoke_run, tmp_path):
    folder = shutil.copytree(smoke_run, tmp_path / "run")
    run_pipeline(make_config(8, "smoke", place=0), folder, update=True, command="schedule", say=lambda _: None)
    run = open_run(folder)
    assert {s.times for n, s in run.schedules.items() if n != "global_cheap"} == {tuple(run.prices.times)}
    assert "global_placed" not in run.schedules
    chosen = run.fronts["frechet"].chosen
    assert run.fronts["frechet"].assignments[chosen] == run.schedules["hybrid"].assignment
    again = schedule_from_assignment(run.prices, run.schedules["hybrid"].assignment, penalty="frechet")
    assert again.penalty == pytest.approx(run.schedules["hybrid"].penalty)
