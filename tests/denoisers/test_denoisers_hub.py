"""Denoisers shared as people share models: folders with a card, and a hub that is faked; nothing here has a network."""

from __future__ import annotations

import builtins
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from receptive_field import randomise

import phasewise as pw
from phasewise.denoisers import HybridDenoiser, LocalDenoiser, UNetDenoiser, WienerDenoiser
from phasewise.denoisers.card import MARK
from phasewise.display import cell, measured
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import refuse_remote_code, write_json, write_text
from phasewise.results import HybridSchedule, TrainingRecord
from phasewise.tensors import convert_to_safetensors, read_pickled, read_tensors

SHAPE = (1, 8, 8)
hub = pytest.importorskip("huggingface_hub")


def noise(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.7


def local(**given: Any) -> LocalDenoiser:
    denoiser = LocalDenoiser(SHAPE, 2, width=8, depth=1, **given)
    denoiser.fit_moments(noise(20))
    return randomise(denoiser, std=0.1).eval()  # type: ignore[return-value]


def hybrid() -> HybridDenoiser:
    plan = HybridSchedule(
        (1.0, 0.6, 0.3), ("linear", "r2", "r2"), penalty=0.5, penalty_stderr=0.02, penalty_name="kl", mflop=1.25
    )
    return HybridDenoiser({"r2": local(), "linear": WienerDenoiser.fit(noise(30), 1)}, plan)


def training(name: str = "r2") -> TrainingRecord:
    return TrainingRecord(
        name=name, preset={}, steps=1234, images_seen=4936, seconds=7.5, parameters=10, history=(), val_loss=0.125,
        bin_edges=np.array([0.0, 1.0]), val_by_time=np.array([0.125]), seed=3,
    )  # fmt: skip


@pytest.mark.parametrize("build", [local, lambda: local(classes=4), hybrid], ids=["local", "classes", "hybrid"])
def test_a_folder_gives_back_what_was_put_in(build, tmp_path: Path) -> None:
    denoiser = build()
    assert denoiser.save_pretrained(tmp_path / "a") == tmp_path / "a"
    pw.save_denoiser(denoiser, tmp_path / "b")
    files = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    plain = {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert files.pop(Path("README.md"))
    assert files == plain
    again = type(denoiser).from_pretrained(tmp_path / "a")
    cond = torch.tensor([1, 3]) if denoiser.takes_condition else None
    assert torch.equal(again(noise(2), 0.5, cond), denoiser(noise(2), 0.5, cond))
    assert not again.training


def test_a_card_says_what_the_denoiser_is_and_no_more(tmp_path: Path) -> None:
    denoiser = local()
    card = hub.ModelCard.load(denoiser.save_pretrained(tmp_path / "r2") / "README.md")
    assert card.data.library_name == "phasewise"
    assert {"denoiser", "local-denoiser"} <= set(card.data.tags)
    mean, std = (float(v) for v in denoiser.pixel_moments())
    flops = pw.count_flops(denoiser, SHAPE)
    for said in (
        "radius of 2 pixels", str(SHAPE), repr(denoiser.path), f"{sum(p.numel() for p in denoiser.parameters()):,}",
        f"mean {cell(mean)}; standard deviation {cell(std)}", f"{cell(flops / 1e6)} MFLOP", "Denoiser.from_pretrained",
    ):  # fmt: skip
        assert said in card.text, said
    assert "On record" not in card.text
    conditional = local(classes=4).save_pretrained(tmp_path / "classes") / "README.md"
    assert "a class label from 0 to 3" in conditional.read_text()
    assert "cond=0" in conditional.read_text()


def test_a_hybrid_s_card_tells_its_schedule(tmp_path: Path) -> None:
    text = (hybrid().save_pretrained(tmp_path) / "README.md").read_text()
    assert "| 1 | 0.6 | linear |" in text
    assert "| 0.6 | 0 | r2 |" in text
    assert "1.25 MFLOP" in text
    assert f"{measured(0.5, 0.02)} nats (kl)" in text
    assert f"| solver | {hybrid().schedule.solver} |" in text
    assert "WienerDenoiser(1×8×8, radius 1" in text


def test_records_are_on_the_card(tmp_path: Path) -> None:
    text = (local().save_pretrained(tmp_path / "given", records=[training()]) / "README.md").read_text()
    assert "1,234 steps, 4,936 images, seed 3" in text
    write_json(tmp_path / "beside" / "training.json", training("r7").to_dict())
    assert "trained as r7" in (local().save_pretrained(tmp_path / "beside") / "README.md").read_text()


def test_somebody_s_own_card_is_left_alone(tmp_path: Path) -> None:
    denoiser = local()
    card = denoiser.save_pretrained(tmp_path) / "README.md"
    write_text(card, f"---\nlibrary_name: phasewise\n---\n{MARK}\nold numbers")
    denoiser.save_pretrained(tmp_path)
    assert "old numbers" not in card.read_text()
    write_text(card, "mine")
    denoiser.save_pretrained(tmp_path)
    assert card.read_text() == "mine"


def test_another_class_is_refused_by_name(tmp_path: Path) -> None:
    local().save_pretrained(tmp_path)
    with pytest.raises(PhasewiseError, match=r"holds a LocalDenoiser, not a UNetDenoiser; .*LocalDenoiser\.from_pre"):
        UNetDenoiser.from_pretrained(tmp_path)
    assert isinstance(pw.Denoiser.from_pretrained(tmp_path), LocalDenoiser)


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a hub got: its calls, and the folder that was sent."""
    got: dict[str, Any] = {}

    def create_repo(self: Any, repo_id: str, **how: Any) -> Any:
        got["created"] = {"repo_id": repo_id, "token": self.token, **how}
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self: Any, *, folder_path: Path, **how: Any) -> str:
        got["sent"] = how
        shutil.copytree(folder_path, tmp_path / "sent")
        return "https://hub/commit/1"

    monkeypatch.setattr(hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload_folder)
    return got


def test_push_sends_the_folder_in_one_commit(pushed: dict[str, Any], tmp_path: Path) -> None:
    denoiser = hybrid()
    address = denoiser.push_to_hub("me/mine", token="secret", private=True, branch="b", commit_message="first")
    assert address == "https://hub/commit/1"
    assert pushed["created"] == {"repo_id": "me/mine", "token": "secret", "private": True, "exist_ok": True}
    assert pushed["sent"]["revision"] == "b"
    assert pushed["sent"]["commit_message"] == "first"
    sent = tmp_path / "sent"
    names = sorted(str(p.relative_to(sent)) for p in sent.rglob("*") if p.is_file())
    weights = [f"{m}/{f}" for m in ("linear", "r2") for f in ("config.json", "weights.safetensors")]
    assert names == ["README.md", "config.json", *weights]
    assert 'from_pretrained("me/mine")' in (sent / "README.md").read_text()
    assert torch.equal(HybridDenoiser.from_pretrained(sent)(noise(2), 0.5), denoiser(noise(2), 0.5))


def test_nothing_is_made_on_the_hub_for_what_cannot_be_saved(pushed: dict[str, Any]) -> None:
    with pytest.raises(PhasewiseError, match="cannot be saved"):
        local(classes=2).given(1).push_to_hub("me/mine")
    assert not pushed


def test_what_the_hub_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    with pytest.raises(PhasewiseError, match=r"cannot push to me/mine: a token is needed: .*hf auth login"):
        local().push_to_hub("me/mine")


def cached(folder: Path, cache: Path, name: str) -> None:
    """``folder`` as the hub's library keeps a repository of that name."""
    root = cache / f"models--{name.replace('/', '--')}"
    commit = "a" * 40
    shutil.copytree(folder, root / "snapshots" / commit)
    write_text(root / "refs" / "main", commit)


def test_a_repository_is_read_from_the_cache(tmp_path: Path) -> None:
    cached(hybrid().save_pretrained(tmp_path / "made"), tmp_path / "cache", "me/mine")
    again = pw.Denoiser.from_pretrained("me/mine", cache_dir=tmp_path / "cache", local_files_only=True)
    assert torch.equal(again(noise(2), 0.5), hybrid()(noise(2), 0.5))
    with pytest.raises(PhasewiseError, match="HybridDenoiser, not a LocalDenoiser"):
        LocalDenoiser.from_pretrained("me/mine", cache_dir=tmp_path / "cache", local_files_only=True)


def test_what_is_fetched_is_no_code_and_no_pickle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, asked = local().save_pretrained(tmp_path), {}

    def snapshot(name: str, **how: Any) -> str:
        asked.update(how, name=name)
        return str(made)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    pw.Denoiser.from_pretrained("me/mine", revision="v1", token="secret")
    assert asked["allow_patterns"] == ["*.json", "*.safetensors", "README.md"]
    assert (asked["name"], asked["revision"], asked["token"]) == ("me/mine", "v1", "secret")


def test_offline_without_a_copy_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"me/none is not on this machine.*without local_files_only"):
        pw.Denoiser.from_pretrained("me/none", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (ConnectionError, "check the network"),
        (type("RepositoryNotFoundError", (OSError,), {}), "no such repository, or it is private"),
        (type("RevisionNotFoundError", (OSError,), {}), "no such revision"),
    ],
)
def test_a_fetch_that_fails_says_why(kind, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind("404")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(PhasewiseError, match=said):
        pw.Denoiser.from_pretrained("me/none")


def test_no_folder_and_no_repository(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*nothing; give the folder"):
        pw.Denoiser.from_pretrained(tmp_path / "nothing")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    denoiser = local()
    for call in (lambda: denoiser.push_to_hub("me/mine"), lambda: pw.Denoiser.from_pretrained("me/mine")):
        with pytest.raises(PhasewiseError, match=r"huggingface_hub: pip install 'phasewise\[hub\]'"):
            call()
    # folders need no library
    assert isinstance(pw.Denoiser.from_pretrained(denoiser.save_pretrained(tmp_path)), LocalDenoiser)


# --- code and pickles -----------------------------------------------------------------------------------------------

REMOTE = {
    "auto_map": ({"config.json": {"auto_map": {"AutoModel": "modeling.Mine"}}}, "auto_map"),
    "in a part": ({"unet/config.json": {"auto_map": {"AutoModel": "me/code--modeling.Mine"}}}, "auto_map"),
    "pipeline of a file": ({"model_index.json": {"_class_name": ["pipeline", "Mine"]}}, "_class_name"),
    "part of a file": (
        {"model_index.json": {"_class_name": "P", "unet": ["my_unet", "U"]}, "unet/my_unet.py": {}},
        "unet: ",
    ),
    "part of another repository": ({"model_index.json": {"_class_name": "P", "unet": ["me/code", "U"]}}, "unet: "),
}


@pytest.mark.parametrize("name", REMOTE)
def test_remote_code_is_refused_by_name(name: str, tmp_path: Path) -> None:
    files, entry = REMOTE[name]
    for file, content in files.items():
        write_json(tmp_path / file, content)
    for call in (refuse_remote_code, pw.Denoiser.from_pretrained):
        with pytest.raises(PhasewiseError, match=rf"asks for code of its own \({entry}.*never run"):
            call(tmp_path)


def test_usual_folders_ask_for_no_code(tmp_path: Path) -> None:
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"], "vae": [None, None]}
    write_json(
        tmp_path / "model_index.json", {"_class_name": "DDPMPipeline", "safety": ["stable_diffusion", "S"], **parts}
    )
    write_json(
        tmp_path / "unet" / "config.json", {"_class_name": "UNet2DModel", "down": ["Down", "Down"], "auto_map": {}}
    )
    refuse_remote_code(tmp_path)
    hybrid().save_pretrained(tmp_path / "hybrid")
    refuse_remote_code(tmp_path / "hybrid")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_malicious_pickle_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    trap = {"weight": torch.zeros(2), "trap": Trap(tmp_path / "sprung")}
    file = tmp_path / "weights.bin"
    if form == "zip":
        torch.save(trap, file)
    else:
        file.write_bytes(pickle.dumps(trap))
    for call in (read_pickled, convert_to_safetensors):
        with pytest.raises(CheckpointError, match="no file of plain weights"):
            call(file)
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "weights.safetensors").exists()
    torch.load(file, weights_only=False) if form == "zip" else pickle.loads(file.read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap works: it was the reader that did not spring it"


def test_old_weights_come_through_safetensors(tmp_path: Path) -> None:
    denoiser = local()
    denoiser.save_pretrained(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    state = denoiser.state_dict()
    torch.save({"state_dict": {**state, "tied": state["data_mean"]}, "epoch": 3}, tmp_path / "tied.ckpt")
    assert set(read_pickled(tmp_path / "tied.ckpt")) == {*state, "tied"}
    assert set(read_tensors(convert_to_safetensors(tmp_path / "tied.ckpt"))[0]) == {*state, "tied"}
    (tmp_path / "tied.safetensors").unlink()
    (tmp_path / "tied.ckpt").unlink()
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"as a pickle only \(weights.pt\).*convert_to_safetensors\("):
        pw.load_denoiser(tmp_path)
    assert convert_to_safetensors(tmp_path / "weights.pt") == tmp_path / "weights.safetensors"
    assert torch.equal(LocalDenoiser.from_pretrained(tmp_path)(noise(2), 0.5), denoiser(noise(2), 0.5))
    with pytest.raises(CheckpointError, match="there already"):
        convert_to_safetensors(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "holds no weights by name"),
        ({"a": 3}, "holds no weights by name"),
        ({}, "holds no weights by name"),
        ({"a": torch.zeros(1).expand(10**6)}, "a is no plain tensor"),
        ({"a": torch.eye(2).to_sparse()}, "a is no plain tensor"),
    ],
)
def test_a_pickle_without_weights(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=said):
        read_pickled(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04broken"])
def test_no_pickle_at_all(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="no file of plain weights"):
        read_pickled(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_pickled(tmp_path / "none.pt")
