"""Faster calls of the same networks: compiled, in bfloat16, or exported to ONNX and run without PyTorch's own kernels.

None of it changes the weights.  Which wins depends on the machine: docs/results/networks.md has a table, and the
command.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.denoisers.base import Denoiser, Given, OnPath, a_denoiser
from phasewise.denoisers.guided import GuidedDenoiser
from phasewise.denoisers.hybrid import HybridDenoiser
from phasewise.denoisers.kept import key_of
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.denoisers.reuse import ReusedFeatures
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import parse_json, write_bytes
from phasewise.flops import count_call
from phasewise.paths import Time, as_time, path_from_config
from phasewise.results import Record

ONNX_FORMAT = 1


@checks.checked(denoiser=a_denoiser, compile=checks.flag, precision=checks.precision)
def for_inference(denoiser: Denoiser, *, compile: bool = False, precision: str = "float32") -> Denoiser:
    """``denoiser`` with its networks compiled, or their products in bfloat16; it shares the weights of the original.

    Args:
        denoiser: any; of a hybrid each member is made faster, what is no network (Wiener) is left as it is.
        compile: ``torch.compile`` the network: about half a minute at the first call of each batch shape.
        precision: "float32", or "bfloat16": products and convolutions under autocast, preconditioning in float32.

    Raises PhasewiseError for an unknown precision, or where compiling on a CPU finds no C++ compiler.
    """
    faster = functools.partial(for_inference, compile=compile, precision=precision)
    if isinstance(denoiser, HybridDenoiser):
        # a network is kept in parts as it is written: a compiled one cannot look at what is kept
        split = {
            key for reused in denoiser.reused_members() if isinstance(reused, ReusedFeatures) for key in [reused.key]
        }
        members = {
            name: for_inference(m, compile=compile and key_of(_innermost(m)) not in split, precision=precision)
            for name, m in denoiser.members.items()
        }
        return HybridDenoiser(members, denoiser.schedule).eval()
    if isinstance(denoiser, ReusedFeatures):
        whole = for_inference(denoiser.member, precision=precision)
        return ReusedFeatures(whole, denoiser.part, denoiser.order, variable=denoiser.variable).eval()
    if isinstance(denoiser, OnPath):
        return faster(denoiser.member).on(denoiser.path).eval()
    if isinstance(denoiser, Given):
        return faster(denoiser.member).given(denoiser.cond).eval()
    if isinstance(denoiser, GuidedDenoiser):
        member, null, interval = faster(denoiser.member), denoiser.null, denoiser.interval
        return GuidedDenoiser(member, denoiser.scale, null=null, interval=interval).eval()
    if not isinstance(denoiser, NetworkDenoiser) or (not compile and precision == "float32"):
        return denoiser
    if compile:
        need_compiler(denoiser.device)
    before = vars(denoiser).get("backbone")
    if isinstance(before, _Faster):  # made faster once: both choices hold
        compile, precision = compile or before.compile, before.precision if precision == "float32" else precision
    fast = copy.copy(denoiser)  # its parameters are the original's
    fast.training = False  # not eval(): its modules are the original's
    fast.backbone = _Faster(fast, compile, precision)  # type: ignore[method-assign]
    return fast


def _innermost(denoiser: Denoiser) -> Denoiser:
    inside = getattr(denoiser, "member", None)
    return denoiser if inside is None else _innermost(inside)


class _Faster:
    """The backbone of ``network``, compiled or under autocast; that of its copy once the network is copied."""

    def __init__(self, network: NetworkDenoiser, compile: bool, precision: str) -> None:
        self.network, self.compile, self.precision = network, compile, precision
        plain = functools.partial(type(network).backbone, network)
        self.call = torch.compile(plain) if compile else plain

    def __call__(self, h: Tensor, log_snr: Tensor, *labels: Tensor) -> Tensor:
        with torch.autocast(h.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.call(h, log_snr, *labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Faster:
        return _Faster(copy.deepcopy(self.network, memo), self.compile, self.precision)


def need_compiler(device: torch.device) -> None:
    """Raises PhasewiseError where ``torch.compile`` for a CPU finds no C++ compiler."""
    if device.type == "cpu" and not any(map(shutil.which, compilers())):
        raise PhasewiseError("compiling for the CPU needs a C++ compiler (g++ or clang++); install one or leave it out")


def compilers() -> list[str]:
    return [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]


class _Unchecked(nn.Module):
    """``denoiser(x_t, t)`` for t (B,) without looking at the values of t, which an exported graph cannot."""

    def __init__(self, denoiser: NetworkDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        out, c_out, skip = self.denoiser.residual_at(x_t, t.reshape(-1, 1, 1, 1))
        return skip + c_out * out


@checks.checked(denoiser=a_denoiser, file=checks.file)
def export_onnx(denoiser: Denoiser, file: str | Path) -> Path:
    """Write a network as ONNX: inputs ``x_t`` (B, C, H, W) and ``t`` (B,), output ``posterior_mean``, B free.

    Needs the extra ``phasewise[onnx]``.  Read it with :class:`OnnxDenoiser`, or with any ONNX runtime.

    Raises PhasewiseError for a denoiser that is no single network (export a hybrid's members one by one), or for one
    that takes a condition.
    """
    if denoiser.takes_condition or isinstance(denoiser, Given):
        raise PhasewiseError("only networks without a condition are exported; run a conditional one by PyTorch")
    if not isinstance(denoiser, NetworkDenoiser):
        raise PhasewiseError(
            f"{type(denoiser).__name__} is no single network; only networks are exported, a hybrid member by member"
        )
    _need("onnx", "onnxscript")
    # two images: export takes a size of 1 as fixed
    x_t, t = torch.zeros(2, *denoiser.image_shape), torch.tensor([0.4, 0.6])
    batch = torch.export.Dim("batch")
    model = _Unchecked(copy.deepcopy(denoiser).cpu().float()).eval()  # a copy: the original stays where it is
    with torch.no_grad():
        program = torch.onnx.export(
            model, (x_t, t), dynamo=True, verbose=False, input_names=["x_t", "t"], output_names=["posterior_mean"],
            dynamic_shapes={"x_t": {0: batch}, "t": {0: batch}},
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    moments = denoiser.pixel_moments()
    with torch.inference_mode():
        flops = count_call(model.denoiser, torch.zeros(1, *denoiser.image_shape))
    about = {
        "format": ONNX_FORMAT,
        "flops": flops,
        "image_shape": list(denoiser.image_shape),
        "radius": denoiser.radius,
        "path": denoiser.path.config(),
        "moments": None if moments is None else [m.tolist() for m in moments],
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = "phasewise", json.dumps(about)
    return write_bytes(Path(file), proto.SerializeToString())


@dataclass(frozen=True)
class ExportRecord(Record):
    """What an exported file says of itself beside its format and path; ``flops`` of one call, an image."""

    image_shape: tuple[int, int, int]
    radius: int | None
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    flops: int | None = None


class OnnxDenoiser(Denoiser):
    """A network that :func:`export_onnx` wrote, run by ONNX Runtime on the CPU; fit for sampling, pricing and hybrids.

    Args:
        file: the .onnx file.  threads: of the runtime; 0 for its own choice.

    Needs the extra ``phasewise[onnx]``.  Raises CheckpointError for a file that phasewise did not write.
    """

    @checks.checked(file=checks.file, threads=checks.at_least_0)
    def __init__(self, file: str | Path, threads: int = 0) -> None:
        _need("onnxruntime")
        import onnxruntime as runtime

        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            about = parse_json(session.get_modelmeta().custom_metadata_map["phasewise"], file)
            path = path_from_config(about["path"])
        except Exception as error:  # the runtime has no common error class
            raise CheckpointError(f"{file} is no network exported by phasewise ({error})") from error
        if about.get("format") != ONNX_FORMAT:
            raise CheckpointError(
                f"{file} has export format {about.get('format')!r}; this phasewise reads {ONNX_FORMAT}"
            )
        try:
            found = ExportRecord.from_dict(about)
        except PhasewiseError as error:
            raise CheckpointError(f"{file} is damaged ({error}); export the network again") from error
        super().__init__(found.image_shape, path, found.radius)
        self.file, self.about = Path(file), found
        self.session: Any = session

    @property
    def flops_per_image(self) -> int:  # type: ignore[override]
        """As counted when it was exported.  Raises PhasewiseError for a file of before that was written."""
        if self.about.flops is None:
            raise PhasewiseError(
                f"{self.file} does not say what a call costs; export the network again with export_onnx"
            )
        return self.about.flops

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        if self.about.moments is None:
            return None
        mean, std = self.about.moments
        return torch.tensor(mean), torch.tensor(std)

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        times = as_time(t, x_t).reshape(-1).expand(len(x_t))
        feed = {"x_t": x_t.detach().cpu().float().numpy(), "t": times.cpu().float().numpy()}
        return torch.from_numpy(self.session.run(None, feed)[0]).to(x_t)


def _need(*modules: str) -> None:
    for module in modules:
        try:
            __import__(module)
        except ImportError as error:
            raise PhasewiseError(
                f"this needs the package {module}: install it with `pip install 'phasewise[onnx]'`"
            ) from error
