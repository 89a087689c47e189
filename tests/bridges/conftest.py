"""Tiny guests, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SHAPE = (1, 8, 8)


@pytest.fixture(scope="session")
def tiny_unet() -> Any:
    pytest.importorskip("diffusers")
    from studies.guests.fixtures import make_unet

    torch.manual_seed(0)
    return make_unet(SHAPE, "tiny").eval()


@pytest.fixture(scope="session")
def tiny_transformer() -> Any:
    pytest.importorskip("diffusers")
    from studies.guests.fixtures import make_transformer

    torch.manual_seed(0)
    net = make_transformer(SHAPE, "tiny").eval()
    with torch.no_grad():  # a fresh one says 0 whatever it sees
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    return net


@pytest.fixture(scope="session")
def folders(tiny_unet: Any, tiny_transformer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pipeline folders by kind, as diffusers' own save_pretrained makes them."""
    from studies.guests.fixtures import save_folder

    root = tmp_path_factory.mktemp("guests")
    nets = {"unet": tiny_unet, "transformer": tiny_transformer}
    return {kind: save_folder(kind, net, root / kind) for kind, net in nets.items()}
