"""The network, the data and one rank's share of the training. No Ray in here.

Everything random is drawn from a generator seeded by (seed, epoch, rank), never
from a running one, so an epoch is the same whether the process trained the
epochs before it or resumed just now.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import atoll
from atoll.checkpoint import Checkpoint

HELD_OUT = 360
STATE_FILE = "state.npz"
COLLECTIVE_TIMEOUT = timedelta(seconds=20)


@dataclass(frozen=True)
class Settings:
    """What a run is. The same settings give the same weights on the same machines."""

    epochs: int = 60
    batch: int = 8
    learning_rate: float = 0.01
    momentum: float = 0.9
    seed: int = 2026


@dataclass(frozen=True)
class Outcome:
    """What a rank has at the end."""

    step: int
    epoch: int
    accuracy: float
    weights_sha256: str


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """scikit-learn's 1,797 digits: train images and labels, then the held-out ones.

    Images are (n, 1, 8, 8) in 0..1. The split never changes.
    """
    data = load_digits()
    images = torch.from_numpy(data.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[HELD_OUT:], order[:HELD_OUT]
    return images[train], labels[train], images[test], labels[test]


def network(seed: int) -> nn.Module:
    """A small convolutional network, initialised from the seed alone."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moves each image by at most one pixel in each direction."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    dy, dx = torch.randint(0, 3, (2, len(images), 1, 1), generator=generator)
    rows = dy + torch.arange(8).view(1, 8, 1)
    columns = dx + torch.arange(8).view(1, 1, 8)
    return padded[torch.arange(len(images)).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def shard(count: int, seed: int, epoch: int, rank: int, world: int) -> torch.Tensor:
    """The indices that `rank` trains on in `epoch`: all ranks the same number."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(count, generator=generator)
    return order[rank : count - count % world : world]


class Rank:
    """One process of the data-parallel group: model, optimiser and place in the run."""

    def __init__(self, rank: int, world: int, rendezvous: str, settings: Settings) -> None:
        torch.set_num_threads(1)
        self.rank, self.world, self.settings = rank, world, settings
        dist.init_process_group(
            "gloo",
            init_method=rendezvous,
            rank=rank,
            world_size=world,
            timeout=COLLECTIVE_TIMEOUT,
        )
        self.model = network(settings.seed)
        self.optimiser = torch.optim.SGD(
            self.model.parameters(), lr=settings.learning_rate, momentum=settings.momentum
        )
        self.step, self.epoch = 0, 0

    def load(self, saved: Checkpoint) -> str:
        """Takes the state of a checkpoint; returns the hash of what the model now holds.

        Raises `atoll.WeightsMismatch` when that is not what was saved.
        """
        with np.load(io.BytesIO(saved.read(STATE_FILE)), allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.model.load_state_dict(
            {name.removeprefix("model/"): t for name, t in state.items() if name[:6] == "model/"}
        )
        for index, parameter in enumerate(self.model.parameters()):
            self.optimiser.state[parameter]["momentum_buffer"] = state[f"momentum/{index}"]
        self.step, self.epoch = saved.step, saved.epoch
        return saved.check_weights(self.model.state_dict())

    def weights_sha256(self) -> str:
        """The hash of the weights in this process; raises when the ranks differ."""
        mine = atoll.weights_sha256(self.model.state_dict())
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, mine)
        if any(other != mine for other in everyone):
            raise RuntimeError(f"the ranks hold different weights: {everyone}")
        return mine

    def state(self) -> bytes:
        """Everything needed to go on from here: plain arrays, so that loading runs no code."""
        arrays = {f"model/{name}": t.numpy() for name, t in self.model.state_dict().items()}
        for index, parameter in enumerate(self.model.parameters()):
            arrays[f"momentum/{index}"] = self.optimiser.state[parameter]["momentum_buffer"].numpy()
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def train(
        self,
        on_step: Callable[[int, int, float], None],
        on_epoch: Callable[[int, int, float, float], None],
        until_epoch: int | None = None,
    ) -> Outcome:
        """Trains to the last epoch. Calls `on_step(step, epoch, loss)` after the first
        step of this process, `on_epoch(step, epoch, loss, accuracy)` after each epoch."""
        settings = self.settings
        images, labels, test_images, test_labels = digits()
        parallel = DistributedDataParallel(self.model)
        announced = False
        last = settings.epochs if until_epoch is None else until_epoch
        while self.epoch < last:
            mine = shard(len(labels), settings.seed, self.epoch, self.rank, self.world)
            noise = torch.Generator().manual_seed(
                (settings.seed * 100_003 + self.epoch) * 1_009 + self.rank
            )
            for batch in mine.split(settings.batch):
                self.optimiser.zero_grad()
                output = parallel(shifted(images[batch], noise))
                loss = nn.functional.cross_entropy(output, labels[batch])
                loss.backward()
                self.optimiser.step()
                self.step += 1
                if not announced:
                    on_step(self.step, self.epoch, loss.item())
                    announced = True
            self.epoch += 1
            on_epoch(self.step, self.epoch, loss.item(), self.accuracy(test_images, test_labels))
        return Outcome(
            self.step, self.epoch, self.accuracy(test_images, test_labels), self.weights_sha256()
        )

    def accuracy(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Share of these images that the model reads right."""
        with torch.no_grad():
            return (self.model(images).argmax(1) == labels).float().mean().item()

    def close(self) -> None:
        """Leaves the group."""
        dist.destroy_process_group()
