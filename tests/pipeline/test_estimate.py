"""What a run says before it starts: networks, costs, time, memory; and local networks that are not worth a step."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from phasewise.flops import as_written
from phasewise.metrics import count_flops
from phasewise.pipeline.estimate import (
    RunEstimate,
    duration,
    estimate_in_words,
    estimate_run,
    expensive,
    expensive_locals,
    network_costs,
    seconds_per_image,
)
from phasewise.pipeline.judging import left_out_of_schedules, plan_schedules
from phasewise.results import PriceList
from phasewise.runs import make_config, open_run
from phasewise.runs.members import MEMBER_KINDS
from phasewise.scheduling import pareto_front

SHAPE = (1, 8, 8)
CONFIG = make_config(8, "smoke")


@pytest.fixture(scope="module")
def costs():
    return network_costs(CONFIG, SHAPE)


def test_networks_are_priced_before_they_are_built(costs):
    assert list(costs) == ["global", "r1", "r2", "control"]
    for name, cost in costs.items():
        network = MEMBER_KINDS[cost.member.kind].build(cost.member, SHAPE)
        counter = FlopCounterMode(display=False)
        with as_written(), counter:
            network(torch.rand(1, *SHAPE), 0.5)
        assert cost.flops == counter.get_total_flops(), name
        # a call at one time, without gradients, folds scale and shift into weights: a local network's only
        assert (cost.flops == count_flops(network, SHAPE)) == (name == "global"), name
        assert cost.parameters == sum(p.numel() for p in network.parameters())
        assert cost.kept > 0


def test_every_network_gets_a_time_and_soon(costs):
    started = time.process_time()
    found = seconds_per_image(costs, SHAPE, CONFIG)
    assert found.keys() == costs.keys()
    assert all(0 < s < math.inf for s in found.values())
    assert time.process_time() - started < 30


def test_what_is_done_is_not_estimated(costs):
    every = ["features", *(f"train-{n}" for n in costs), "diagnose", "recovery", "cmi", "schedule", "evaluate"]
    whole = estimate_run(CONFIG, SHAPE, 1000, every, costs)
    assert whole.training.keys() == costs.keys()
    assert whole.rest > 0
    assert whole.not_counted == ("the feature network", "conditional mutual information")
    assert whole.memory > 2**26
    part = estimate_run(CONFIG, SHAPE, 1000, ["train-r1"], costs)
    assert (list(part.training), part.rest, part.not_counted) == (["r1"], 0.0, ())


def test_estimates_in_words(costs):
    found = RunEstimate({"r1": 90.0}, 30.0, 1.5 * 2**30, ("the feature network",))
    network, whole = estimate_in_words(found, costs)
    assert network.startswith(f"r1: {costs['r1'].parameters:,} parameters, 0.598 MFLOP a call, about 1.5 min")
    assert whole == "in all about 2 min on this machine and 1.5 GiB of memory; not counted: the feature network"
    assert [duration(s) for s in (0.1, 44, 600, 7200)] == ["1 s", "44 s", "10 min", "2 h"]


def test_local_networks_that_cost_a_global_call_are_said_beforehand(costs):
    assert expensive_locals(CONFIG, costs) == []
    dear = costs | {"r2": replace(costs["r2"], flops=1.33 * costs["global"].flops)}
    (line,) = expensive_locals(CONFIG, dear)
    assert line.startswith("r2 costs 133 % of a global call")
    assert line.endswith("left out of schedules")
    assert expensive({"global": 2.0, "r1": 2.0, "r2": 1.9}, ["r1", "r2", "r9"]) == ["r1"]


def test_and_they_take_no_step(smoke_run):
    prices = PriceList.load(smoke_run / "records" / "prices.json")
    flops = prices.flops.copy()
    flops[prices.names.index("r1")] = 1.2 * flops[prices.names.index("global")]
    priced = replace(prices, flops=flops)
    assert left_out_of_schedules(CONFIG, prices) == []
    assert left_out_of_schedules(CONFIG, priced) == ["r1"]
    members = [n for n in priced.names if n != "r1"]
    fronts = {"frechet": pareto_front(priced, penalty="frechet", solver="exp_ab2", members=members)}
    plans, _ = plan_schedules(priced, fronts, CONFIG, (0.2, 0.5), None)
    assert {"hybrid", "global", "global_cheap"} == plans.keys(), "r1 is the local partner of all the others"
    assert not any("r1" in plan.assignment for plan in plans.values())
    assert np.isfinite(plans["hybrid"].mflop)


def test_a_judgement_says_what_its_numbers_are(smoke_run):
    run = open_run(smoke_run)
    assert {e.measure for e in run.evaluations.values()} == {"FID"}
    assert all(e.same_noise for e in run.evaluations.values()), "exp_ab2 draws no noise after the start"
    hybrid, cheap = run.schedules["hybrid"], run.schedules["global_cheap"]
    assert cheap.mflop >= hybrid.mflop * (1 - 1e-6) or len(cheap.times) == len(hybrid.times) - 1
