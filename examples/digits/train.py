"""Trains a small network on scikit-learn's handwritten digits with PyTorch DDP.

On Atoll: `atoll job submit examples/digits --devices 3`. Ray runs this file as
the driver on the head pod; it puts one actor on each pod, and the actors train
together (DistributedDataParallel, gloo over the overlay). After every epoch
rank 0 saves a checkpoint to the object store. When a pod is lost the driver
ends with an error at once; Atoll replaces the pod and runs this file again as
the next attempt, which goes on from the last complete checkpoint.

On a laptop: `python train.py` starts a local Ray with DIGITS_WORLD actors (1),
keeps no checkpoints and prints its reports.

DIGITS_EPOCHS sets the number of epochs.
"""

from __future__ import annotations

import os
import socket
import sys

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import atoll
from atoll import checkpoint
from atoll.reporting import attempt_from_env

PLACEMENT_TIMEOUT_S = 60
ACCURACY_MIN = 0.93


class Trainer:
    """One rank, alone on its pod."""

    def address(self) -> tuple[str, int]:
        """This pod's address and a port that is free now."""
        ip = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((ip, 0))
            return ip, probe.getsockname()[1]

    def train(self, rank: int, world: int, rendezvous: str, run: dict) -> dict:
        """Trains to the end; rank 0 reports and saves."""
        from model import STATE_FILE, Rank, Settings

        attempt, epochs = run["attempt"], run["epochs"]
        settings = Settings() if epochs is None else Settings(epochs=epochs)
        member = Rank(rank, world, rendezvous, settings)
        saved = run["manifest"] and checkpoint.Checkpoint.from_json(run["manifest"])
        if saved:
            member.load(saved)
        digest = member.weights_sha256()

        def report(kind: str, **fields) -> None:
            if rank == 0:
                atoll.report(kind, attempt=attempt, **fields)

        if saved:
            report(
                "resumed",
                step=member.step,
                epoch=member.epoch,
                resumed_from_step=saved.step,
                weights_sha256=digest,
            )
        else:
            report("started", step=0, epoch=0, weights_sha256=digest)

        def on_step(step: int, epoch: int, loss: float) -> None:
            report("step", step=step, epoch=epoch, loss=loss)

        def on_epoch(step: int, epoch: int, loss: float, accuracy: float) -> None:
            report("step", step=step, epoch=epoch, loss=loss, accuracy=accuracy)
            if rank == 0 and run["checkpoints"]:
                digest = atoll.weights_sha256(member.model.state_dict())
                files = {STATE_FILE: member.state()}
                checkpoint.save(step, epoch, files, digest, attempt=attempt)
                report("checkpoint", step=step, epoch=epoch, weights_sha256=digest)

        outcome = member.train(on_step, on_epoch)
        member.close()
        return vars(outcome)


def place(world: int, spread: bool) -> list:
    """One actor per pod, in the order of the pods' addresses, so that ranks are stable."""
    group = placement_group([{"CPU": 1}] * world, "STRICT_SPREAD" if spread else "PACK")
    if not group.wait(PLACEMENT_TIMEOUT_S):
        sys.exit(f"{world} pods with a free CPU did not appear in {PLACEMENT_TIMEOUT_S} s")
    actor = ray.remote(num_cpus=1, max_restarts=0)(Trainer)
    trainers = [
        actor.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote()
        for index in range(world)
    ]
    addresses = ray.get([trainer.address.remote() for trainer in trainers])
    ranked = sorted(zip(addresses, trainers, strict=True), key=lambda pair: socket.inet_aton(pair[0][0]))
    return [(f"tcp://{ip}:{port}", trainer) for (ip, port), trainer in ranked]


def together(tasks: list) -> list[dict]:
    """Waits for all ranks; ends the job as soon as one of them fails.

    The others then hang in a collective until its timeout: there is nothing to wait for.
    """
    left, outcomes = list(tasks), []
    while left:
        done, left = ray.wait(left, num_returns=1)
        try:
            outcomes += ray.get(done)
        except ray.exceptions.RayError as error:
            sys.exit(f"lost a rank, stopping this attempt: {error}")
    return outcomes


def main() -> None:
    in_pods = atoll.store_configured()
    world = int(os.environ.get("ATOLL_WORLD") or os.environ.get("DIGITS_WORLD") or 1)
    epochs = os.environ.get("DIGITS_EPOCHS")
    if in_pods:
        ray.init()
        saved = checkpoint.latest()
    else:
        ray.init(num_cpus=world)
        saved = None
    run = {
        "attempt": attempt_from_env(),
        "epochs": int(epochs) if epochs else None,
        "checkpoints": in_pods,
        "manifest": saved.to_json() if saved else None,
    }
    ranked = place(world, spread=in_pods)
    rendezvous = ranked[0][0]
    outcomes = together(
        [
            trainer.train.remote(rank, world, rendezvous, run)
            for rank, (_, trainer) in enumerate(ranked)
        ]
    )
    if len({outcome["weights_sha256"] for outcome in outcomes}) != 1:
        sys.exit("the ranks ended with different weights")
    outcome = outcomes[0]
    atoll.report("result", **outcome)
    print(f"accuracy on held-out digits: {outcome['accuracy']:.4f}")
    if outcome["accuracy"] < ACCURACY_MIN:
        sys.exit(f"accuracy {outcome['accuracy']:.4f} is below {ACCURACY_MIN}")


if __name__ == "__main__":
    main()
