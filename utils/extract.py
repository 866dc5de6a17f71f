"""Features of one's own: pooled outputs of any networks' modules, written as the folder of `docs/own_data.md`.

    image = Extractor(resnet, ["layer1", "layer2", "layer3.0"], logits="fc")
    text = Extractor(bert, ["encoder.layer.3:last", "encoder.layer.11:last"])  # transformers have channels last
    write_features("data/mine", "train", {"image": image, "text": text}, loader)

where the loader gives (images, tokens, labels).
"""

import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import UsageError
from utils.files import whole_file

CHANNEL_LAST = ":last"  # after a module's name
SPLITS = ("train", "dev", "test")
MODALITIES = (2, 5)  # fewest, most
MODALITY_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Extractor:
    """Pooled features of a network: the outputs of some of its modules, averaged over all but batch and channel.

    An output (B, C, ...) becomes (B, C); with ":last" after the module's name (B, ..., C) becomes (B, C); (B, C) stays.
    Of a tuple or list the first tensor counts. The network itself is not changed.

    Args:
        layers: names of `network.named_modules()`, such as "layer1" or "layer2.0"; one feature each.
        logits: the module whose output are the class scores, in the same way; "" is the network itself.

    Raises:
        UsageError: the network has no such module.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], logits: str | None = None) -> None:
        if isinstance(layers, str) or not layers:
            raise UsageError(f'layers must be a list of module names, such as ["layer1"], but got {layers!r}')
        self.network = network
        self.layers = tuple(layers)
        self.logits = logits
        self._names = self.layers if logits is None else (*self.layers, logits)
        modules = dict(network.named_modules(remove_duplicate=False))
        self._tapped = [_module_named(name.removesuffix(CHANNEL_LAST), modules) for name in self._names]

    @torch.no_grad()
    def __call__(self, inputs: object) -> tuple[list[Tensor], Tensor | None]:
        """The features (B, C) in the order of `layers`, and the logits (B, C) or None, as float32.

        The network runs in eval mode and without gradients; afterwards its modules are in the mode that they were in.

        Args:
            inputs: what the network takes: a tensor or array, or a list or tuple of several arguments, or a mapping of
                named ones. Tensors are moved to the network's device, floating-point ones also to its type.

        Raises:
            UsageError: a module did not run exactly once, or its output is no tensor, or not of these shapes.
        """
        outputs: list[list[object]] = [[] for _ in self._names]
        hooks = [
            module.register_forward_hook(functools.partial(_keep, name, kept))
            for name, module, kept in zip(self._names, self._tapped, outputs, strict=True)
        ]
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            _forward(self.network, inputs)
        finally:
            for hook in hooks:
                hook.remove()
            for module in training:
                module.training = True
        for name, kept in zip(self._names, outputs, strict=True):
            if not kept:
                raise UsageError(f"module {name!r} did not run: the network's forward does not call it on these inputs")
            if len(kept) > 1:
                raise UsageError(
                    f"module {name!r} ran {len(kept)} times in one forward pass, so it has no one output; "
                    "name a module around it that runs once"
                )
        pooled = [kept[0] for kept in outputs]
        return pooled[: len(self.layers)], None if self.logits is None else pooled[-1]


def write_features(
    folder: str | Path, split: str, networks: Mapping[str, Extractor], batches: Iterable[Sequence[object]]
) -> Path:
    """Write FOLDER/SPLIT.npz, whole or not at all: all features and logits of one pass, and the labels.

    Args:
        split: "train", "dev" or "test".
        networks: by the modality's name; their order is that of the columns of a configuration.
        batches: (input of the first network, of the second, ..., labels), as a DataLoader gives them, in any order of
            samples; or one such tuple in a list. Labels are integers (B,), or 0/1 (B, C) for multi-label.

    Returns:
        the file's path: float32 arrays "NAME.0", "NAME.1", ... and "NAME.logits", and "label".

    Raises:
        UsageError: names, batches, labels or features break these rules; nothing is written.
    """
    _check_names(split, networks)
    columns: dict[str, list[np.ndarray]] = {}
    for number, batch in enumerate(batches):
        if not isinstance(batch, list | tuple) or len(batch) != len(networks) + 1:
            found = f"{len(batch)} parts" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
            parts = ", ".join([f"input of {name}" for name in networks] + ["labels"])
            raise UsageError(f"every batch must be ({parts}), but batch {number} is {found}")
        *inputs, labels = batch
        labels = torch.as_tensor(labels).cpu().numpy()
        columns.setdefault("label", []).append(labels)
        for (name, extractor), x in zip(networks.items(), inputs, strict=True):
            features, logits = extractor(x)
            arrays = {str(i): feature for i, feature in enumerate(features)}
            arrays |= {} if logits is None else {"logits": logits}
            for column, values in arrays.items():
                where = f"{name}.{column} of batch {number}"
                columns.setdefault(f"{name}.{column}", []).append(_checked(values, np.shape(labels), where))
    if not sum(map(len, columns.get("label", []))):
        raise UsageError(f"the batches of {split} hold no sample; an iterator gives its batches only once")
    whole = {column: np.concatenate(parts) for column, parts in columns.items()}
    whole["label"] = _whole_labels(whole["label"])
    path = Path(folder) / f"{split}.npz"
    with whole_file(path) as file:
        np.savez(file, **whole)
    return path


def _module_named(name: str, modules: Mapping[str, nn.Module]) -> nn.Module:
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=5, cutoff=0.5)
        some = list(itertools.islice((known for known in modules if known), 8))
        hint = f"near it: {', '.join(near)}" if near else f"it has {', '.join(some) or 'none'}, ..."
        raise UsageError(f"the network has no module named {name!r}; {hint}")
    return modules[name]


def _keep(name: str, kept: list[Tensor], module: nn.Module, args: object, output: object) -> None:
    """The hook: pool now, for a module that follows may work in place."""
    kept.append(_pooled(output, name))


def _pooled(output: object, name: str) -> Tensor:
    """The mean (B, C) over all dimensions but the first and the channels, in memory of its own."""
    x = next((x for x in output if isinstance(x, Tensor)), None) if isinstance(output, list | tuple) else output
    if not isinstance(x, Tensor) or x.is_nested or x.layout != torch.strided:
        kind = type(output).__name__ if not isinstance(x, Tensor) else "nested or sparse tensor"
        raise UsageError(f"the output of module {name!r} must be a tensor, but is a {kind}; name a module inside it")
    if x.ndim < 2:
        raise UsageError(f"the output of module {name!r} must be (batch, channel, ...), but is {tuple(x.shape)}")
    if x.ndim == 2:
        return x.to(torch.float32, copy=True)
    rest = range(1, x.ndim - 1) if name.endswith(CHANNEL_LAST) else range(2, x.ndim)
    return x.mean(dim=tuple(rest), dtype=torch.float32)


def _forward(network: nn.Module, inputs: object) -> None:
    weights = itertools.chain(network.parameters(), network.buffers())
    like = next((x for x in weights if x.is_floating_point()), torch.empty(0))

    def placed(x: object) -> object:
        if not isinstance(x, Tensor | np.ndarray):
            return x
        x = torch.as_tensor(x)
        return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)

    if isinstance(inputs, Mapping):
        network(**{name: placed(x) for name, x in inputs.items()})
    elif isinstance(inputs, list | tuple):
        network(*map(placed, inputs))
    else:
        network(placed(inputs))


def _check_names(split: str, networks: Mapping[str, Extractor]) -> None:
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, but got {split!r}")
    fewest, most = MODALITIES
    if not fewest <= len(networks) <= most:
        raise UsageError(f"there must be {fewest} to {most} networks, but got {len(networks)}")
    with_logits = [name for name, extractor in networks.items() if extractor.logits is not None]
    if len(with_logits) not in (0, len(networks)):
        raise UsageError(f"give the logits of all networks or of none, but only {', '.join(with_logits)} has them")
    for name in networks:
        if not MODALITY_NAME.fullmatch(name):
            raise UsageError(f"a modality's name must be of letters, digits, _ and -, but got {name!r}")


def _checked(values: Tensor, labels: tuple[int, ...], where: str) -> np.ndarray:
    """Pooled values (B, C) of a batch as an array, once they are found fit to train on."""
    if len(labels) not in (1, 2) or len(values) != labels[0]:
        raise UsageError(
            f"labels must be (B,) or (B, C) and {where} must have B rows, but they are {labels} and "
            f"{tuple(values.shape)}; is the batch the first dimension (batch_first=True)?"
        )
    if not values.isfinite().all():
        bad = int((~values.isfinite()).any(dim=1).sum())
        raise UsageError(f"{where} holds NaN or infinity in {bad} of {len(values)} rows")
    return values.cpu().numpy()


def _whole_labels(labels: np.ndarray) -> np.ndarray:
    """Class numbers (N,) or 0/1 (N, C) as int64."""
    whole = labels.astype(np.int64)
    most = 1 if labels.ndim == 2 else np.inf
    if (whole != labels).any() or whole.min() < 0 or whole.max() > most:
        rule = "0 or 1, being (N, C)" if labels.ndim == 2 else "class numbers from 0, being (N,)"
        raise UsageError(f"labels must be {rule}, but lie between {labels.min()} and {labels.max()} as {labels.dtype}")
    return whole
