"""Pool the output of a network's module to one feature (batch, channel).

A module's name may be followed by how its output is pooled: nothing for channels in the second dimension, as of
convolutions; ":last" for channels in the last; ":mean" for a sequence (batch, position, channel) whose padding is left
out of the mean, given the mask that is among the network's named inputs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from utils.errors import UsageError

CHANNEL_LAST, MASKED_MEAN = ":last", ":mean"
SEQUENCES = (
    nn.RNNBase,
    nn.TransformerEncoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoderLayer,
    nn.TransformerDecoder,
)
TOKENS, PADDING = "attention_mask", "src_key_padding_mask"  # Hugging Face: 1 is a token; torch: True or -inf is padding


def module_name(name: str) -> str:
    """The name of a module without how its output is pooled."""
    suffix = next((suffix for suffix in (CHANNEL_LAST, MASKED_MEAN) if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


class Inputs:
    """The arguments of a network for one batch.

    Args:
        inputs: a tensor or array, a list or tuple of arguments, or a mapping of named arguments. Tensors are moved to
            the network's device, and floating-point ones converted to its type.
    """

    def __init__(self, network: nn.Module, inputs: object) -> None:
        weights = [*network.parameters(), *network.buffers(), torch.empty(0)]
        like = next(x for x in weights if x.is_floating_point())

        def placed(x: object) -> object:
            if not isinstance(x, Tensor | np.ndarray):
                return x
            x = torch.as_tensor(x)
            return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)

        self.named = {name: placed(x) for name, x in inputs.items()} if isinstance(inputs, Mapping) else {}
        positional = inputs if isinstance(inputs, list | tuple) else [inputs]
        self.positional = [] if isinstance(inputs, Mapping) else [placed(x) for x in positional]

    def mask(self) -> Tensor | None:
        """True (B, T) where a position is no padding, from the named inputs; None if they have no such mask."""
        tokens, padding = self.named.get(TOKENS), self.named.get(PADDING)
        mask = tokens != 0 if isinstance(tokens, Tensor) else padding == 0 if isinstance(padding, Tensor) else None
        return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None

    def lengths(self) -> set[int]:
        """Lengths T of sequences: of tokens, which are integers (B, T), and of masks (B, T)."""
        values = [*self.positional, *self.named.values()]
        tokens = [x for x in values if isinstance(x, Tensor) and x.ndim == 2 and not x.is_floating_point()]
        return {x.shape[1] for x in (*tokens, self.mask()) if x is not None}


def pool(name: str, module: nn.Module, output: object, inputs: Inputs, logits: bool = False) -> Tensor:
    """Average an output over all dimensions but the first and the channels.

    Args:
        name: of the module, with how to pool.
        module: whose output it is.
        output: a tensor, or a tuple, list, mapping, named tuple or dataclass, of which the first tensor is used.
        logits: use the one named "logits" if there is one.

    Returns:
        a new float32 tensor (B, C), because a later module may work in place.

    Raises:
        UsageError: the output is not of these shapes, its channels are positions of a sequence, or a mask is missing.
    """
    x = _tensor_of(name, output, logits)
    if x is None or x.is_nested or x.layout != torch.strided:
        kind = type(output).__name__ if x is None else "nested or sparse tensor"
        raise UsageError(f"the output of module {name!r} must be a tensor, but is a {kind}; name a module inside it")
    if x.ndim < 2:
        raise UsageError(f"the output of module {name!r} must be (batch, channel, ...), but is {tuple(x.shape)}")
    if name.endswith(MASKED_MEAN):
        return _masked_mean(name, x, inputs.mask())
    if name.endswith(CHANNEL_LAST):
        rest = range(1, x.ndim - 1)
    else:
        rest = range(2, x.ndim)
        sequence = isinstance(module, SEQUENCES)
        if rest and (sequence or x.shape[1] in inputs.lengths()):
            otherwise = "" if sequence else " (if its channels do come second, pad the batch to another length)"
            raise UsageError(
                f"the output of module {name!r} is {tuple(x.shape)}, whose second dimension is the length of the "
                f"sequence rather than channels; name it '{name}{CHANNEL_LAST}', or '{name}{MASKED_MEAN}' to leave out "
                f"padding{otherwise}"
            )
    return x.mean(dim=tuple(rest), dtype=torch.float32) if rest else x.to(torch.float32, copy=True)


def _tensor_of(name: str, output: Any, logits: bool) -> Tensor | None:
    """The tensor that a module's output is or holds."""
    if isinstance(output, Tensor):
        return output
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):  # also the output objects of Hugging Face
        parts = output
    elif hasattr(output, "_asdict"):
        parts = output._asdict()
    elif dataclasses.is_dataclass(output):
        parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    elif isinstance(output, Sequence):
        parts = dict(enumerate(output))
    if any(isinstance(x, PackedSequence) for x in (output, *parts.values())):
        fix = "pad it (pad_packed_sequence) in a module around it, and name that one"
        raise UsageError(f"the output of module {name!r} is a packed sequence, which cannot be pooled; {fix}")
    tensors = {name: x for name, x in parts.items() if isinstance(x, Tensor)}
    first = next(iter(tensors.values()), None)
    return tensors.get("logits", first) if logits else first


def _masked_mean(name: str, x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        raise UsageError(
            f"module {name!r} needs the batch's mask (B, T): the network's input must be a mapping with {TOKENS!r} "
            f"(1: a token) or {PADDING!r} (True: padding)"
        )
    if x.ndim != 3 or x.shape[:2] != mask.shape:
        raise UsageError(
            f"the output of module {name!r} must be (batch, position, channel) as the mask {tuple(mask.shape)}, but is "
            f"{tuple(x.shape)}; is the batch the first dimension (batch_first=True)?"
        )
    if not mask.any(dim=1).all():
        empty = int(mask.any(dim=1).int().argmin())
        raise UsageError(
            f"module {name!r} needs at least one position that is not padding, but sample {empty} of a batch has none"
        )
    mask = mask.to(x.device)[:, :, None]
    return torch.where(mask, x, 0).sum(dim=1, dtype=torch.float32) / mask.sum(dim=1)
