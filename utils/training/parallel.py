"""Train one network on all processes of a run: each takes a share of every batch, and of the samples to evaluate.

As with DataParallel, a batch is cut into equal parts and every process normalizes its own by its own statistics; those
of process 0 are kept.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.fusion import FusionNetwork
from utils import distributed
from utils.training.batches import Batch, Batches, Part


def replicated(network: nn.Module, alone: nn.Module) -> nn.Module:
    """Return a network for training on all processes, once it is known which weights train; `alone` if there is one."""
    if distributed.world() == 1:
        return alone
    distributed.join()
    unused = False  # whether there are weights that the loss does not reach, such as those of unimodal classifiers
    if isinstance(network, FusionNetwork):
        unused = bool(network.backbones()) and not network.settings.multitask
    return DistributedDataParallel(network, find_unused_parameters=unused)


def share(batches: Batches) -> tuple[Iterator[Batch], list[tuple[int, int]]]:
    """This process's part of every batch, and its number of samples beside that of the whole batch.

    A process whose part is empty gets one sample, which must not count: all have to take part in every step.
    """
    parts, sizes = list[Part](), list[tuple[int, int]]()
    places = torch.arange(len(batches.split)) if batches.order is None else batches.order
    for batch in places.split(batches.batch_size):
        most = -(-len(batch) // distributed.world())
        own = batch[distributed.rank() * most :][:most]
        parts.append(own if len(own) else batch[:1])
        sizes.append((len(own), len(batch)))
    return batches.split.read(parts), sizes


def total(*sums: Tensor) -> list[Tensor]:
    """Sums over all processes."""
    everyone = distributed.gather([one.cpu() for one in sums])
    return [torch.stack(parts).sum(0).to(own.device) for own, *parts in zip(sums, *everyone, strict=True)]


def evaluated(batches: Batches) -> Iterator[Batch]:
    """Read this process's share of the batches to evaluate: consecutive ones, so that `joined` restores the order."""
    parts = batches.parts()
    return batches.split.read(parts[distributed.own_part(len(parts))])


def joined(parts: list[Tensor], device: torch.device) -> list[Tensor]:
    """The parts of all processes, in order."""
    if distributed.world() == 1:
        return parts
    return [part.to(device) for own in distributed.gather([part.cpu() for part in parts]) for part in own]


def share_statistics(network: nn.Module) -> None:
    """Give all processes the statistics of batch norm of process 0."""
    if distributed.world() > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)
