"""Shared by all tests: two threads, or one where two processes share the tests; the folder of large image sets."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are slow on busy cores
os.environ["PHASEWISE_CACHE"] = ""  # tests keep nothing in the user's folder

import pytest
import torch

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds mnist/, cifar10/, ...: PHASEWISE_DATA, else ../shared/data; skips where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PHASEWISE_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("no folder of large image sets (set PHASEWISE_DATA)")
    return folder


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the smallest size on digits, made once; tests that change it work on a copy."""
    from phasewise.pipeline import make_config, run_pipeline

    folder = tmp_path_factory.mktemp("runs") / "smoke"
    return run_pipeline(make_config(8, "smoke"), folder, say=lambda _: None)
