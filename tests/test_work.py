"""How long a piece of work takes on an idle machine, whatever else runs beside it."""

from __future__ import annotations

import os
import time

import pytest
import torch

from phasewise.work import Work, busy, covariance_like, covariance_work, own_seconds, rows_like, seconds_of


@pytest.fixture
def clocks(monkeypatch):
    """A made machine: a call takes ``wall`` seconds, of which this thread works ``own``, all threads ``every``."""

    class Machine:
        wall = own = every = 0.0
        now = dict.fromkeys(("wall", "own", "every"), 0.0)
        calls = 0

        def once(self):
            self.calls += 1
            for name in self.now:
                self.now[name] += getattr(self, name)

    machine = Machine()
    monkeypatch.setattr(time, "perf_counter", lambda: machine.now["wall"])
    monkeypatch.setattr(time, "thread_time", lambda: machine.now["own"])
    monkeypatch.setattr(time, "process_time", lambda: machine.now["every"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return machine


@pytest.mark.parametrize(
    ("wall", "own", "every", "seconds"),
    [
        (0.02, 0.02, 0.04, 0.02),  # idle, both threads at work
        (0.10, 0.02, 0.04, 0.02),  # the same between others' work
        (0.10, 0.03, 0.03, 0.03),  # one thread works alone
        (0.02, 0.03, 0.08, 0.02),  # no longer than the wall's clock says
        (0.02, 0.0, 0.0, 0.02),  # clocks of too coarse a grain
    ],
)
def test_others_work_is_not_counted(clocks, wall, own, every, seconds):
    clocks.wall, clocks.own, clocks.every = wall, own, every
    assert own_seconds(clocks.once) == pytest.approx(seconds)


def test_the_first_try_warms_up_and_the_least_counts(clocks):
    took = iter([0.4, 0.02, 0.05, 0.03])

    def once():
        clocks.wall = clocks.own = clocks.every = next(took)
        clocks.once()

    assert own_seconds(once) == pytest.approx(0.02)
    assert clocks.calls == 4


def test_a_long_first_try_may_be_all_warming_up(clocks):
    """Of a call that takes a moment, the first makes the kernels."""
    took = iter([1.5, 0.6, 0.0])

    def once():
        clocks.wall = clocks.own = clocks.every = next(took)
        clocks.once()

    assert own_seconds(once) == pytest.approx(0.6)
    assert clocks.calls == 2


def test_long_tries_are_not_repeated_and_short_ones_often(clocks):
    clocks.wall = clocks.own = clocks.every = 3.0
    assert own_seconds(clocks.once) == pytest.approx(3.0)
    assert clocks.calls == 1
    clocks.wall = clocks.own = clocks.every = 0.003
    assert Work(clocks.once, 500).seconds() == pytest.approx(1.5)
    assert clocks.calls == 1 + 2 + 2 * 4
    assert seconds_of([Work(clocks.once, 1000), Work(clocks.once, 0)]) == pytest.approx(3.0)


def test_a_real_clock_agrees():
    """Twice the products take longer, and the processor's time is what the wall's is at the most."""
    x = torch.randn(200, 200)
    few, many = (own_seconds(lambda n=n: [x @ x for _ in range(n)]) for n in (2, 40))
    assert 0 < few < many


def test_large_covariances_are_tried_on_smaller_ones():
    product, vectors = covariance_work(4096, 2048)
    assert (product.times, vectors.times) == (4 * 2**2, 2**3)
    product, vectors = covariance_work(512, 64)
    assert (product.times, vectors.times) == (0.5, 1.0)
    assert float(torch.linalg.eigvalsh(covariance_like(rows_like(16))).min()) > 0.1, "one that can be factored"


def test_a_machine_is_busy_where_more_runs_than_it_has_processors(monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    monkeypatch.setattr(os, "getloadavg", lambda: (cores + 0.5, 0, 0), raising=False)
    assert busy() == (cores + 0.5, cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (cores - 0.5, 0, 0))
    assert busy() is None
    monkeypatch.delattr(os, "getloadavg")
    assert busy() is None, "where the system does not say"
