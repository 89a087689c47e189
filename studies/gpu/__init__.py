"""Jobs for the rare half hours of a large GPU: self-contained, resumable, tried in miniature on the CPU."""

from studies.gpu.study import GPUQueue

__all__ = ["GPUQueue"]
