"""A whole run: its stages over a run folder."""

from phasewise.pipeline.comparing import compare_runs
from phasewise.pipeline.distilling import distil
from phasewise.pipeline.output import check_output, write_grid, write_samples
from phasewise.pipeline.run import describe_cost, describe_plan, run_pipeline
from phasewise.pipeline.telling import Teller
from phasewise.pipeline.use import config_for, default_folder, need_run, read_options
from phasewise.runs import RunConfig, make_config

__all__ = [
    "RunConfig",
    "Teller",
    "check_output",
    "compare_runs",
    "config_for",
    "default_folder",
    "describe_cost",
    "describe_plan",
    "distil",
    "make_config",
    "need_run",
    "read_options",
    "run_pipeline",
    "write_grid",
    "write_samples",
]
