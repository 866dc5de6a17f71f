"""The interface of the unimodal networks that a fusion network reads."""

import abc
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class UnimodalNetwork(nn.Module, abc.ABC):
    """A classifier of one modality that also returns its pooled features."""

    feature_widths: Sequence[int]  # D_1 ... D_n
    memory_format = torch.contiguous_format  # the one in which the network runs fastest

    @abc.abstractmethod
    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features that fusion reads, each (B, D_i), and the logits (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.pooled(x)[1]  # (B, C)
