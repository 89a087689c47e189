"""Cases of bad input to public calls and to the command line, by field; :mod:`test_bad_input` tries them all."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import phasewise as pw
from phasewise.denoisers import DiTDenoiser, for_inference
from phasewise.diagnosis import (
    AttentionWithin,
    gap_window,
    measure_cloning,
    measure_influence,
    measure_losses,
    measure_recovery,
    path_kl,
    speciation,
)
from phasewise.exact import (
    DiscreteSystem,
    GaussianField,
    GaussianMixture,
    IsingChain,
    IsingStrip,
    QuantumState,
    TwoMode,
    ensembles,
    reverse_bits,
    reverse_field,
)
from phasewise.information import make_estimator, make_geometry, make_problem
from phasewise.results import LossTable, PriceList
from phasewise.runs import make_config
from phasewise.sampling import starting_noise
from phasewise.scheduling import (
    baselines,
    boundary_of,
    by_frechet,
    guarded,
    measure_step_errors,
    place_steps,
    prices_at,
    schedule_from_assignment,
    search_grid,
    search_times,
)
from phasewise.tensors import read_pickled
from phasewise.training import TrainPreset, train_together

NAN, INF = float("nan"), float("inf")


@cache
def world() -> SimpleNamespace:
    """What the cases share: small denoisers, images, prices, features."""
    field = GaussianField((6, 6), mass=1.0)
    x = field.sample(48, 0)
    members = {"global": field.denoiser(), "r1": field.denoiser(1)}
    times = (1.0, 0.6, 0.2)
    return SimpleNamespace(
        x=x, net=pw.LocalDenoiser((1, 6, 6), 1), wiener=pw.WienerDenoiser.fit(x), members=members, times=times,
        prices=pw.price_list(members, x, times, n=8, batch=2), losses=measure_losses(members, x[:8], (0.3, 0.6)),
        schedule=pw.HybridSchedule((1.0, 0.5), ("global", "r1")), features=pw.metrics.RandomFeatures((1, 6, 6)),
    )  # fmt: skip


def frechet_reference():
    """Moments that other features than those of :func:`world` have made."""
    return pw.metrics.FrechetReference.fit(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), "other")


def spoiled(x, value=NAN):
    x = x.clone()
    x[0, 0, 0, 0] = value
    return x


def sample(**given):
    return pw.sample(world().net, **{"n": 2, "steps": 2, **given})


def losses(**given):
    w = world()
    return measure_losses(**{"denoisers": w.members, "images": w.x[:4], "times": (0.5,), **given})


def reach(**given):
    w = world()
    return pw.reach(**{"denoiser": w.net, "data": w.x, "times": (0.5,), "n": 4, **given})


class Silent(pw.LinearPath):
    """A path that adds no noise."""

    def sigma(self, t):
        return 0 * t


class Lost(pw.LinearPath):
    """A path whose noise is no number: so are the answers on it."""

    def sigma(self, t):
        return super().sigma(t) * NAN


def prices(**given):
    w = world()
    return pw.price_list(**{"denoisers": w.members, "data": w.x, "times": w.times, "n": 4, **given})


def schedule(**given):
    return pw.optimise_schedule(**{"prices": world().prices, **given})


def boundary(**given):
    w = world()
    return pw.boundary(
        **{"early": w.members["r1"], "late": w.members["global"], "data": w.x, "n": 4, "steps": 2, **given}
    )


def clones(**given):
    asked = {"denoiser": world().net, "images": world().x[:4], "times": [0.5], "steps": 1}
    asked |= {"classify": lambda x: torch.arange(len(x)) % 2, **given}
    return measure_cloning(**asked)


def cmi(**given):
    w = world()
    return pw.cmi_map(**{"data": w.x, "radii": [1], "times": [0.5], "estimator": "gaussian", **given})


def train(denoiser=None, **given):
    w = world()
    return pw.train(denoiser or w.net, **{"data": w.x, "steps": 1, "batch": 4, "progress": False, **given})


def small():
    """A network for images of half the side."""
    return pw.LocalDenoiser((1, 3, 3), 1)


def planned(**given):
    local = pw.LocalDenoiser((1, 6, 6), 1, context=1)
    return pw.PlanDenoiser(**{"planner": small(), "local": local, "factor": 2, **given})


def fid(**given):
    w = world()
    return pw.fid(**{"samples": w.x, "reference": w.x, "features": w.features, **given})


def records(flops, ms=(1.0, 1.0)):
    return PriceList(world().losses, np.array(flops, dtype=float), np.array(ms, dtype=float))


CALLS = {
    "sampling": {
        "n=1.5": lambda: sample(n=1.5),
        "n=True": lambda: sample(n=True),
        "n=0": lambda: sample(n=0),
        "n='3'": lambda: sample(n="3"),
        "n=10**15": lambda: sample(n=10**15),
        "n=10**400": lambda: sample(n=10**400),
        "seed='a'": lambda: sample(seed="a"),
        "seed=-1": lambda: sample(seed=-1),
        "seed=2**63": lambda: sample(seed=2**63),
        "seed=None": lambda: sample(seed=None),
        "steps=0": lambda: sample(steps=0),
        "steps=10**9": lambda: sample(steps=10**9),
        "steps and times": lambda: sample(times=[1.0, 0.5]),
        "batch=-1": lambda: sample(batch=-1),
        "times=[None]": lambda: sample(steps=None, times=[None]),
        "times=0.5": lambda: sample(steps=None, times=0.5),
        "times ascend": lambda: sample(steps=None, times=[0.1, 0.5]),
        "times=[nan]": lambda: sample(steps=None, times=[NAN]),
        "solver='eulr'": lambda: sample(solver="eulr"),
        "solver=3": lambda: sample(solver=3),
        "device='cuda' without one": lambda: sample(device="cuda:99"),
        "device='foo'": lambda: sample(device="foo"),
        "device='meta'": lambda: sample(device="meta"),
        "device='cpu:7'": lambda: sample(device="cpu:7"),
        "device=3.5": lambda: sample(device=3.5),
        "a function for a denoiser": lambda: pw.sample(lambda x, t: x, 2),
        "a class for a denoiser": lambda: pw.sample(pw.LocalDenoiser, 2),
        "NaN in x_init": lambda: sample(x_init=spoiled(world().x), t_start=0.5),
        "x_init of another shape": lambda: sample(x_init=torch.zeros(2, 1, 5, 5), t_start=0.5),
        "x_init without t_start": lambda: sample(x_init=world().x[:2]),
        "t_start=0": lambda: sample(t_start=0),
        "t_min=nan": lambda: sample(t_min=NAN),
        "spacing='log'": lambda: sample(spacing="log"),
        "spacing of a hybrid": lambda: pw.sample(pw.HybridDenoiser(world().members, world().schedule), spacing="edm"),
        "t_min of a hybrid": lambda: pw.sample(pw.HybridDenoiser(world().members, world().schedule), t_min=0.1),
        "progress=3": lambda: sample(progress=3),
        "time_grid(2.5)": lambda: pw.time_grid(2.5),
        "time_grid(path='linear')": lambda: pw.time_grid(4, path="linear"),
        "starting_noise(shape of two)": lambda: starting_noise(2, (6, 6)),
    },
    "anisotropic paths": {
        "Haar on odd sides": lambda: pw.ModePath((27, 27), "haar"),
        "basis='fourier'": lambda: pw.ModePath((6, 6), "fourier"),
        "basis=3": lambda: pw.ModePath((6, 6), 3),
        "shape of three": lambda: pw.ModePath((1, 6, 6)),
        "shape=6": lambda: pw.ModePath(6),
        "three paths for two bands": lambda: pw.ModePath((6, 6), "haar", [pw.LinearPath()] * 3),
        "of='linear'": lambda: pw.ModePath((6, 6), of="linear"),
        "a band without noise": lambda: pw.ModePath((6, 6), "haar", [pw.LinearPath(), Silent()]),
        "a band of bands": lambda: pw.ModePath((6, 6), of=pw.ModePath((6, 6))),
        "power=nan": lambda: pw.ModePath((6, 6), power=NAN),
        "mass=0": lambda: pw.ModePath((6, 6), power=1, mass=0),
        "blur=-1": lambda: pw.ModePath((6, 6), blur=-1),
        "colour of Haar": lambda: pw.ModePath((6, 6), "haar", power=1),
        "images of another size": lambda: pw.LocalDenoiser((1, 6, 6), 1, path=pw.ModePath((4, 4)))(world().x, 0.5),
        "translated": lambda: world().net.on(pw.ModePath((6, 6), power=1))(world().x, 0.5),
        "priced": lambda: pw.price_list(
            {"global": pw.LocalDenoiser((1, 6, 6), 1, path=pw.ModePath((6, 6), power=1))}, world().x, (1.0, 0.5)
        ),
        "solver='heun_churn'": lambda: pw.sample(
            pw.LocalDenoiser((1, 6, 6), 1, path=pw.ModePath((6, 6), power=1)), 2, steps=3, solver="heun_churn"
        ),
    },
    "denoisers": {
        "radius=1.5": lambda: pw.LocalDenoiser((1, 6, 6), 1.5),
        "radius=True": lambda: pw.LocalDenoiser((1, 6, 6), True),
        "radius=99": lambda: pw.LocalDenoiser((1, 6, 6), 99),
        "image_shape='a'": lambda: pw.LocalDenoiser("abc", 1),
        "image_shape of floats": lambda: pw.UNetDenoiser((1, 8.5, 8)),
        "width='a'": lambda: pw.LocalDenoiser((1, 6, 6), 1, width="a"),
        "expansion=nan": lambda: pw.LocalDenoiser((1, 6, 6), 1, expansion=NAN),
        "path='linear'": lambda: pw.LocalDenoiser((1, 6, 6), 1, path="linear"),
        "width=12 of a U-Net": lambda: pw.UNetDenoiser((1, 8, 8), width=12),
        "multipliers=[1.5]": lambda: pw.UNetDenoiser((1, 8, 8), multipliers=[1.5]),
        "an unknown size": lambda: pw.UNetDenoiser.of_size((1, 8, 8), "tiny"),
        "Wiener of NaN images": lambda: pw.WienerDenoiser.fit(spoiled(world().x)),
        "Wiener of bytes": lambda: pw.WienerDenoiser.fit((world().x * 9).byte()),
        "float64 pixels": lambda: world().net(world().x.double(), 0.5),
        "an array for x_t": lambda: world().net(world().x.numpy(), 0.5),
        "t=1.5": lambda: world().net(world().x, 1.5),
        "t='a'": lambda: world().net(world().x, "a"),
        "on('linear')": lambda: world().net.on("linear"),
        "hybrid of functions": lambda: pw.HybridDenoiser({"global": abs, "r1": abs}, world().schedule),
        "hybrid of a list": lambda: pw.HybridDenoiser([world().net], world().schedule),
        "hybrid without a schedule": lambda: pw.HybridDenoiser(world().members, None),
        "for_inference(precision='half')": lambda: for_inference(world().net, precision="half"),
        "save_denoiser(3)": lambda: pw.save_denoiser(3, "x"),
        "load_denoiser(3)": lambda: pw.load_denoiser(3),
        "load_denoiser(device='foo')": lambda: pw.load_denoiser("nowhere", device="foo"),
    },
    "pooled and planned": {
        "a factor that does not divide": lambda: pw.PooledDenoiser(small(), (1, 6, 8), 2),
        "a factor larger than the image": lambda: pw.PooledDenoiser(small(), (1, 6, 6), 7),
        "factor=1": lambda: pw.PooledDenoiser(small(), (1, 6, 6), 1),
        "factor=2.5": lambda: pw.PooledDenoiser(small(), (1, 6, 6), 2.5),
        "a member of full size": lambda: pw.PooledDenoiser(world().net, (1, 6, 6), 2),
        "fitted to others": lambda: pw.PooledDenoiser(small(), (1, 6, 6), 2).fit(world().x[:, :, :4]),
        "fitted to NaN": lambda: pw.PooledDenoiser(small(), (1, 6, 6), 2).fit(spoiled(world().x)),
        "pooled by 4 of 6": lambda: pw.pool_images(world().x, 4),
        "a plan larger than the image": lambda: planned(factor=12),
        "a plan that does not divide": lambda: planned(factor=4),
        "a planner of full size": lambda: planned(planner=world().net),
        "a filter for a planner": lambda: planned(planner=world().wiener),
        "a local part without context": lambda: planned(local=world().net),
        "a U-Net for the local part": lambda: planned(local=small()),
        "weight=-1": lambda: planned(weight=-1),
        "context=-1": lambda: pw.LocalDenoiser((1, 6, 6), 1, context=-1),
        "the local part alone": lambda: pw.LocalDenoiser((1, 6, 6), 1, context=1)(world().x, 0.5),
        "a frozen planner never trained": lambda: train(planned(frozen=True)),
    },
    "training": {
        "seed=-1": lambda: train(seed=-1),
        "steps=1.5": lambda: train(steps=1.5),
        "epochs=1e300": lambda: train(steps=None, epochs=1e300),
        "batch=0": lambda: train(batch=0),
        "span=(0.5, 0.2)": lambda: train(span=(0.5, 0.2)),
        "span='ab'": lambda: train(span="ab"),
        "device='mps' without one": lambda: train(device="mps:3"),
        "teacher=abs": lambda: train(teacher=abs),
        "progress='yes'": lambda: train(progress="yes"),
        "a function for a network": lambda: train(abs),
        "a closed form for a network": lambda: train(world().wiener),
        "NaN images": lambda: train(data=spoiled(world().x)),
        "19 images": lambda: train(data=world().x[:19]),
        "preset=3": lambda: train(preset=3),
        "preset of lr=nan": lambda: TrainPreset(lr=NAN),
        "no networks": lambda: train_together({}, world().x),
        "a list of networks": lambda: train_together([world().net], world().x),
    },
    "sharing": {
        "no folder": lambda: pw.Denoiser.from_pretrained("/nonexistent"),
        "no name of a repository": lambda: pw.Denoiser.from_pretrained("a/b/c"),
        "source=3": lambda: pw.Denoiser.from_pretrained(3),
        "revision=3": lambda: pw.Denoiser.from_pretrained("/nonexistent", revision=3),
        "token=3": lambda: pw.Denoiser.from_pretrained("/nonexistent", token=3),
        "folder=3": lambda: world().net.save_pretrained(3),
        "records=[3]": lambda: world().net.save_pretrained("/nonexistent", records=[3]),
        "a repository is no text": lambda: world().net.push_to_hub(3),
        "a denoiser that cannot be saved": lambda: world().members["r1"].push_to_hub("me/mine"),
        "old weights that are not there": lambda: read_pickled("/nonexistent.pt"),
        "teacher=3": lambda: pw.distil(3, out="/nonexistent"),
        "teacher is no folder": lambda: pw.distil("/nonexistent", out="/nonexistent"),
        "samples=1": lambda: pw.distil("/nonexistent", samples=1, out="/nonexistent"),
        "radii=(0,)": lambda: pw.distil("/nonexistent", radii=(0,), out="/nonexistent"),
    },
    "diagnosis": {
        "batch=-1": lambda: losses(batch=-1),
        "seed=1.5": lambda: losses(seed=1.5),
        "times=[]": lambda: losses(times=[]),
        "times=[0]": lambda: losses(times=[0.0]),
        "times=['a']": lambda: losses(times=["a"]),
        "times=None": lambda: losses(times=None),
        "NaN images": lambda: losses(images=spoiled(world().x)),
        "images of bytes": lambda: losses(images=(world().x * 9).byte()),
        "images of three axes": lambda: losses(images=world().x[0]),
        "one image": lambda: losses(images=world().x[:1]),
        "a function for a denoiser": lambda: losses(denoisers={"global": abs}),
        "a missing reference": lambda: losses(reference="best"),
        "recovery, steps=0": lambda: measure_recovery(world().members, world().x[:2], [0.5], steps=0),
        "recovery, solver='x'": lambda: measure_recovery(world().members, world().x[:2], [0.5], solver="x"),
        "gap of an unknown name": lambda: gap_window(world().losses, pw.LinearPath(), "r9"),
        "gap, tolerance=2": lambda: gap_window(world().losses, pw.LinearPath(), "r1", 2),
        "path_kl(path=None)": lambda: path_kl(world().losses, None),
        "markov_length of prices": lambda: pw.markov_length(world().prices),
        "reach, radii=[9]": lambda: reach(radii=[9]),
        "reach, radii=[-1]": lambda: reach(radii=[-1]),
        "reach, radii=[]": lambda: reach(radii=[]),
        "reach, radii=2": lambda: reach(radii=2),
        "reach, times=[0]": lambda: reach(times=[0.0]),
        "reach, times=None": lambda: reach(times=None),
        "reach, n=1": lambda: reach(n=1),
        "reach, pixels=0": lambda: reach(pixels=0),
        "reach of a function": lambda: reach(denoiser=abs),
        "reach of three images": lambda: reach(data=world().x[:3]),
        "reach, images of another shape": lambda: reach(data=torch.zeros(8, 3, 6, 6)),
        "reach, NaN images": lambda: reach(data=spoiled(world().x)),
        "reach, NaN answers": lambda: reach(denoiser=pw.LocalDenoiser((1, 6, 6), 1, path=Lost())),
        "reach, a condition where none is taken": lambda: reach(cond=0),
        "reach, windows without attention": lambda: reach(windows=[1]),
        "reach, patch without attention": lambda: reach(patch=2),
        "reach, windows beyond the tokens": lambda: reach(
            denoiser=DiTDenoiser((1, 6, 6), width=4, heads=1, patch=2), windows=[3]
        ),
        "influence of one image": lambda: measure_influence(world().net, world().x[:1], (0.5,)),
        "speciation of a name": lambda: speciation("digits"),
        "speciation of one image": lambda: speciation(world().x[:1]),
        "speciation, NaN images": lambda: speciation(spoiled(world().x)),
        "speciation, three labels": lambda: speciation(world().x, labels=[0, 1, 2]),
        "speciation, draws=1": lambda: speciation(world().x, draws=1),
        "clones, times=[0]": lambda: clones(times=[0.0]),
        "clones, steps=0": lambda: clones(steps=0),
        "clones, a solver without noise": lambda: clones(solver="ddim"),
        "clones, classify=3": lambda: clones(classify=3),
        "clones, classes that are no whole numbers": lambda: clones(classify=lambda x: x.mean((1, 2, 3))),
        "clones of one class": lambda: clones(classify=lambda x: torch.zeros(len(x), dtype=torch.int64)),
        "clones, NaN images": lambda: clones(images=spoiled(world().x)),
        "clones of a function": lambda: clones(denoiser=abs),
        "attention, windows=[0.5]": lambda: reach(windows=[0.5]),
        "attention within -1": lambda: AttentionWithin(world().net, -1, 1),
        "attention within patches of 0": lambda: AttentionWithin(world().net, 1, 0),
    },
    "information": {
        "block=1.5": lambda: cmi(block=1.5),
        "block=9": lambda: cmi(block=9),
        "radii=[-1]": lambda: cmi(radii=[-1]),
        "radii=2": lambda: cmi(radii=2),
        "radii=['a']": lambda: cmi(radii=["a"]),
        "times=[nan]": lambda: cmi(times=[NAN]),
        "times='ab'": lambda: cmi(times="ab"),
        "center=(1,)": lambda: cmi(center=(1,)),
        "center=3": lambda: cmi(center=3),
        "seed=-5": lambda: cmi(seed=-5),
        "accuracy=0": lambda: cmi(accuracy=0),
        "estimator=3": lambda: cmi(estimator=3),
        "folds=100000": lambda: cmi(folds=100000),
        "folds='a'": lambda: cmi(folds="a"),
        "NaN images": lambda: cmi(data=spoiled(world().x)),
        "an unknown option": lambda: make_estimator("knn", depth=3),
        "19 images": lambda: make_problem(world().x[:19], [0.5], [1]),
        "a geometry of no image": lambda: make_geometry((1, 0, 6)),
    },
    "scheduling": {
        "n=1": lambda: prices(n=1),
        "seed='a'": lambda: prices(seed="a"),
        "batch=0": lambda: prices(batch=0),
        "features=abs": lambda: prices(features=abs),
        "times ascend": lambda: prices(times=(0.2, 0.6), trajectories=2),
        "budget=inf": lambda: schedule(budget=INF),
        "budget=2": lambda: schedule(budget=2),
        "budget=nan": lambda: schedule(budget=NAN),
        "budget='a'": lambda: schedule(budget="a"),
        "budget=1e-9": lambda: schedule(budget=1e-9),
        "tolerance='a'": lambda: schedule(tolerance="a"),
        "penalty=abs": lambda: schedule(budget=0.9, penalty=abs),
        "members=[]": lambda: schedule(budget=0.9, members=[]),
        "solver='x'": lambda: schedule(budget=0.9, solver="x"),
        "prices=None": lambda: schedule(prices=None, budget=0.5),
        "an assignment too short": lambda: schedule_from_assignment(world().prices, ["global"]),
        "a grid outside": lambda: prices_at(world().prices, [0.9, 0.01]),
        "place_steps(errors=3)": lambda: place_steps(world().prices, 3, budget=1.0),
        "measure_step_errors(n=1)": lambda: measure_step_errors(world().members["global"], (0.9, 0.5), n=1),
        "search_times(steps=0)": lambda: search_times(0, abs),
        "search_times by 3": lambda: search_times(3, 3),
        "search_times(budget=0)": lambda: search_times(3, lambda t, s: 0.0, budget=0),
        "search_times, ends turned round": lambda: search_times(3, lambda t, s: 0.0, ends=(0.2, 0.1)),
        "search_times without room": lambda: search_times(3, lambda t, s: 0.0, first=0.05),
        "search_times from 2 times of 3": lambda: search_times(3, lambda t, s: 0.0, begin=(1.0, 0.05)),
        "search_times from rising times": lambda: search_times(3, lambda t, s: 0.0, begin=(1.0, 0.03, 0.05)),
        "search_times from a late end": lambda: search_times(3, lambda t, s: 0.0, begin=(1.0, 0.9, 0.5)),
        "search_times from elsewhere": lambda: search_times(3, lambda t, s: 0.0, begin=(0.9, 0.5, 0.05)),
        "search_times from words": lambda: search_times(3, lambda t, s: 0.0, begin="early"),
        "search_times, a judge of NaN": lambda: search_times(3, lambda t, s: NAN),
        "search_times, a judge of words": lambda: search_times(3, lambda t, s: "good"),
        "search_grid of functions": lambda: search_grid([abs, abs], 2, abs),
        "search_grid, 3 members for 2 steps": lambda: search_grid([world().wiener] * 3, 2, abs),
        "search_grid, a solver that is none": lambda: search_grid(world().wiener, 2, abs, solver="x"),
        "by_frechet of moments of others": lambda: by_frechet(world().features, frechet_reference()),
        "guarded by images": lambda: guarded(abs, torch.zeros(8, 1, 4, 4), 1.0),
        "guarded(allowed=0)": lambda: guarded(abs, pw.metrics.SlicedReference.of_images(torch.rand(8, 1, 4, 4)), 0.0),
        "a window turned round": lambda: baselines.window((0.9, 0.5), (0.5, 0.2), "a", "b"),
        "fewer_steps(mflop=inf)": lambda: baselines.fewer_steps(world().prices, INF, "heun"),
        "fraction_for an unknown name": lambda: baselines.fraction_for(world().prices, "r9", "global", 1.0, "heun"),
        "explain(None)": lambda: pw.explain(None, world().prices),
        "boundary, n=1": lambda: boundary(n=1),
        "boundary, steps=0": lambda: boundary(steps=0),
        "boundary, times=[nan]": lambda: boundary(times=[NAN]),
        "boundary of functions": lambda: boundary(early=abs),
        "boundary, reference='global'": lambda: boundary(reference="global"),
        "boundary, tolerance=2": lambda: boundary(tolerance=2),
        "boundary, one name": lambda: boundary(names=("a",)),
        "boundary, solver='x'": lambda: boundary(solver="x"),
        "boundary, cost='s'": lambda: boundary(cost="s"),
        "boundary by w2 without a reference": lambda: boundary(penalty="w2"),
        "boundary by frechet without features": lambda: boundary(penalty="frechet", reference="late"),
        "boundary on NaN images": lambda: boundary(data=spoiled(world().x)),
        "boundary of images of another size": lambda: boundary(data=world().x[..., :5]),
        "boundary_of an unknown name": lambda: boundary_of(world().prices, "r9", "global"),
        "an unknown export": lambda: world().schedule.export("boundary"),
        "an export of 3": lambda: world().schedule.export(3),
        "an export without a clock": lambda: world().schedule.export("boundary_ratio"),
        "an export with a clock of 3": lambda: world().schedule.export("boundary_ratio", clock=3),
        "an export of an unknown member": lambda: world().schedule.export("guidance_interval", member="r9"),
    },
    "records": {
        "an unknown solver": lambda: pw.HybridSchedule((1.0,), ("global",), solver="magic"),
        "an unknown path": lambda: pw.HybridSchedule((1.0,), ("global",), path={"name": "magic"}),
        "a path without a name": lambda: pw.HybridSchedule((1.0,), ("global",), path={}),
        "times of text": lambda: pw.HybridSchedule(("a",), ("global",)),
        "a cost of NaN": lambda: records([1.0, NAN]),
        "a cost of 0": lambda: records([0.0, 1.0]),
        "a cost too few": lambda: records([1.0]),
        "a time below 0": lambda: records([1.0, 1.0], [1.0, -1.0]),
        "an unknown column": lambda: world().losses.column("r9"),
        "losses of another shape": lambda: LossTable(**{**vars(world().losses), "gap": np.zeros((1, 1))}),
        "a seed of 2**64 in a config": lambda: make_config(8, seed=2**64),
        "an image side of 0": lambda: make_config(0),
    },
    "metrics": {
        "samples=None": lambda: fid(samples=None),
        "NaN samples": lambda: fid(samples=spoiled(world().x)),
        "seven samples": lambda: fid(samples=world().x[:7]),
        "features=abs": lambda: fid(features=abs),
        "batch=0": lambda: fid(batch=0),
        "seed=-1": lambda: fid(seed=-1),
        "frechet_distance of text": lambda: pw.metrics.frechet_distance("a", "b", "c", "d"),
        "sliced_wasserstein(directions=0)": lambda: pw.metrics.sliced_wasserstein(world().x, world().x, directions=0),
        "sliced_wasserstein of 4 samples": lambda: pw.metrics.sliced_wasserstein(torch.rand(4, 1, 6, 6), world().x),
        "SlicedReference.load of none": lambda: pw.metrics.SlicedReference.load("nowhere"),
        "SlicedJudge of a tensor": lambda: pw.metrics.SlicedJudge(torch.rand(3)),
        "FrechetJudge of no network": lambda: pw.metrics.FrechetJudge(abs, None),
        "verdict of no judges": lambda: pw.metrics.verdict(world().x, world().x, {}),
        "verdict of other judges": lambda: pw.metrics.verdict(world().x, world().x, {"a": abs}),
        "verdict of other samples": lambda: pw.metrics.verdict(torch.rand(9, 1, 6, 6), torch.rand(8, 1, 6, 6), {}),
        "classifier_two_sample of few": lambda: pw.metrics.classifier_two_sample(torch.rand(3, 2), torch.rand(3, 2)),
        "classifier_two_sample(epochs=0)": lambda: pw.metrics.classifier_two_sample(
            torch.rand(30, 2), torch.rand(30, 2), epochs=0
        ),
        "unseen_features(kind='x')": lambda: pw.metrics.unseen_features(world().x, kind="x"),
        "precision_recall(k=0)": lambda: pw.metrics.precision_recall(torch.rand(9, 2), torch.rand(9, 2), k=0),
        "count_flops(3)": lambda: pw.count_flops(3, (1, 6, 6)),
        "count_flops of two axes": lambda: pw.count_flops(world().net, (6, 6)),
        "measure_ms({})": lambda: pw.metrics.measure_ms({}, (1, 6, 6)),
        "paired_error of lists": lambda: pw.metrics.paired_error([1], [2]),
        "default_features(kind='x')": lambda: pw.metrics.default_features(world().x, kind="x"),
        "PCA of one image": lambda: pw.metrics.PCAFeatures.fit(world().x[:1]),
    },
    "exact models": {
        "sample(1.5)": lambda: GaussianField((4, 4)).sample(1.5, 0),
        "sample(seed=-1)": lambda: TwoMode((4, 4)).sample(2, -1),
        "mass=nan": lambda: GaussianField((4, 4), mass=NAN),
        "shape='ab'": lambda: GaussianField("ab"),
        "t=2": lambda: GaussianField((4, 4)).cmi(2, 1),
        "t=None": lambda: TwoMode((4, 4)).mmse(None),
        "radius='a'": lambda: TwoMode((4, 4)).cmi(0.5, "a"),
        "block='a'": lambda: TwoMode((4, 4)).cmi(0.5, 1, block="a"),
        "amplitude=0": lambda: TwoMode((4, 4), 0),
        "beta=inf": lambda: IsingChain(5, INF),
        "class terms of no samples": lambda: GaussianMixture([GaussianField((4, 4))] * 2).class_terms(0.5, 1, n=0),
        "a class of an even number of spins": lambda: IsingStrip(2, 3, 0.4).class_terms(0.5, 1),
        "a strip too wide": lambda: IsingStrip(3, 40, 0.3),
        "n=0 draws": lambda: IsingChain(5, 0.3).cmi(0.5, 1, n=0),
        "p of text": lambda: DiscreteSystem("abc"),
        "p that does not sum to 1": lambda: DiscreteSystem(np.ones(4)),
        "rho of text": lambda: QuantumState("abc"),
        "rho that is no state": lambda: QuantumState(np.ones((4, 4))),
        "GHZ of seven qubits": lambda: QuantumState.ghz(7),
        "levels that fall": lambda: DiscreteSystem(np.ones(4) / 4).path_recovery((0.5, 0.2), 1),
        "radius='a' of a path": lambda: DiscreteSystem(np.ones(4) / 4).path_recovery((0.2, 0.5), "a"),
        "an Ising model of text": lambda: ensembles.ising((2, 2), "cold"),
        "too many bits": lambda: ensembles.ghz((5, 5)),
        "reverse_bits from t = 0": lambda: reverse_bits(DiscreteSystem(np.ones(4) / 4), 1, 0.0, 0.5),
        "reverse_field of text": lambda: reverse_field("field", 1),
        "radius=-1 of a state": lambda: QuantumState.ghz(3).cmi(0.0, -1),
        "a mixture of text": lambda: GaussianMixture(["a", "b"]),
        "weights that do not sum to 1": lambda: GaussianMixture([GaussianField((4, 4))] * 2, [0.5, 0.6]),
        "n=0 draws of a mixture": lambda: GaussianMixture([GaussianField((4, 4))]).cmi(0.5, 1, n=0),
    },
    "data and runs": {
        "load_images(3)": lambda: pw.load_images(3),
        "seed=-1": lambda: pw.load_images("digits", seed=-1),
        "limit=1.5": lambda: pw.load_images("digits", limit=1.5),
        "pixel_range='a'": lambda: pw.load_images(world().x, pixel_range="a"),
        "open_run(3)": lambda: pw.open_run(3),
        "load_pretrained('mnits')": lambda: pw.load_pretrained("mnits"),
        "build_report(None)": lambda: pw.report.build_report(None),
        "run_pipeline of a dict": lambda: pw.pipeline.run_pipeline({}, "x"),
    },
}
"""Public calls: field -> name -> a call that must raise PhasewiseError."""

RUN = ("run", "--size", "smoke")
COMMANDS = (
    (*RUN, "--networks", "/nonexistent"),
    (*RUN, "--member", 'mine={"kind": "plan", "radius": 1}'),
    (*RUN, "--member", 'mine={"kind": "plan", "radius": 1, "factor": 3}'),
    (*RUN, "--member", 'mine={"kind": "plan", "radius": 1, "factor": 16}'),
    (*RUN, "--member", 'mine={"kind": "plan", "radius": 1, "factor": "2"}'),
    (*RUN, "--block", "9"),
    (*RUN, "--block", "1000000000"),
    (*RUN, "--block", "0"),
    (*RUN, "--cmi-option", "steps=null"),
    (*RUN, "--cmi-option", "folds=100000"),
    (*RUN, "--cmi-option", "folds=[2]"),
    (*RUN, "--cmi-option", "colour=3"),
    (*RUN, "--limit", "19"),
    (*RUN, "--limit", "1"),
    (*RUN, "--limit", "0"),
    (*RUN, "--device", "cpu:7"),
    (*RUN, "--device", "foo"),
    (*RUN, "--device", "cuda:99"),
    (*RUN, "--samples", "1000000000000"),
    (*RUN, "--steps", "1000000000"),
    (*RUN, "--steps", "1000000", "--samples", "1000000"),
    (*RUN, "--steps", "1.5"),
    (*RUN, "--global-epochs", "1e300"),
    (*RUN, "--global-epochs", "nan"),
    (*RUN, "--local-epochs", "inf"),
    (*RUN, "--seed", "-1"),
    (*RUN, "--seed", "9" * 5000),
    (*RUN, "--seed", str(2**63)),
    (*RUN, "--budget", "0.001"),
    (*RUN, "--budget", "nan"),
    (*RUN, "--features", "inception"),
    (*RUN, "--radii", "50"),
    (*RUN, "--radii", "1,1"),
    (*RUN, "--times", "0.5"),
    (*RUN, "--times", "0.5,nan"),
    (*RUN, "--t-min", "1"),
    (*RUN, "--solver", "eulr"),
    (*RUN, "--window", "0.5,0.2"),
    (*RUN, "--data", "/nonexistent"),
    (*RUN, "--config", "/nonexistent.toml"),
    ("diagnose", "--cmi", "--size", "smoke", "--cmi-option", "folds=100000"),
    ("diagnose", "--cmi", "--size", "smoke", "--device", "cpu:7"),
)
"""Command lines that end with exit status 2, as they are and as a dry run, and leave no folder; ``--out`` is added."""
NET = str(Path(pw.__file__).parent / "pretrained" / "mnist" / "models" / "r3")
COMMANDS += (
    ("distill",),
    ("distill", "--teacher", "/nonexistent"),
    ("distill", "--teacher", NET, "--data", "digits"),
    ("distill", "--teacher", NET, "--data", "digits", "--samples-as-data", "200"),
    ("distill", "--teacher", NET, "--samples-as-data", "5"),
    ("distill", "--teacher", NET, "--radii", "40"),
    ("distill", "--teacher", NET, "--no-distill"),
    ("distill", "--teacher", NET, "--budget", "0.001"),
)
OTHER_COMMANDS = (
    ("sample", "--pretrained", "mnist", "--n", "0"),
    ("sample", "--pretrained", "mnist", "--n", "1000000000000"),
    ("sample", "--pretrained", "mnist", "--seed", "-1"),
    ("sample", "--pretrained", "mnist", "--batch", "-1"),
    ("sample", "--pretrained", "mnist", "--device", "cpu:7"),
    ("sample", "--pretrained", "mnist", "--precision", "half", "--n", "1"),
    ("sample", "--pretrained", "mnits"),
    ("sample", "--run", "/nonexistent"),
    ("demo", "mnist", "--n", "1"),
    ("demo", "mnist", "--seed", "-1"),
    ("demo", "mnist", "--device", "foo"),
    ("report", "/nonexistent"),
    ("boundary", "--pretrained", "mnist", "--early", "r9", "--late", "global"),
    ("boundary", "--run", "/nonexistent", "--early", "r1", "--late", "global"),
    ("boundary", "--pretrained", "mnist", "--early", "r1", "--late", "global", "--data", "/nonexistent"),
    ("boundary", "--pretrained", "mnist", "--early", "r1", "--late", "global", "--tolerance", "2", "--data", "digits"),
    ("options", "nothing"),
)
"""Command lines that end with exit status 2; ``--out`` is not added."""
