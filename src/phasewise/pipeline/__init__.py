"""A whole run: its stages over a run folder."""

from phasewise.pipeline.run import describe_cost, describe_plan, run_pipeline
from phasewise.pipeline.use import check_png_name, config_for, default_folder, need_run, read_options, write_grid
from phasewise.runs import RunConfig, make_config

__all__ = [
    "RunConfig",
    "check_png_name",
    "config_for",
    "default_folder",
    "describe_cost",
    "describe_plan",
    "make_config",
    "need_run",
    "read_options",
    "run_pipeline",
    "write_grid",
]
