"""A whole run: config, folder, stages."""

from phasewise.pipeline.config import SIZES, RunConfig, make_config
from phasewise.pipeline.folder import read_config
from phasewise.pipeline.run import describe_plan, run_pipeline
from phasewise.pipeline.use import check_png_name, config_for, default_folder, load_hybrid, write_grid

__all__ = [
    "SIZES",
    "RunConfig",
    "check_png_name",
    "config_for",
    "default_folder",
    "describe_plan",
    "load_hybrid",
    "make_config",
    "read_config",
    "run_pipeline",
    "write_grid",
]
