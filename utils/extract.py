"""Extract pooled features of a user's own networks and write them to the folder that `docs/own_data.md` describes.

    image = Extractor(resnet, ["layer1", "layer2", "layer3.0"], logits="fc")
    text = Extractor(bert, ["encoder.layer.3:last", "encoder.layer.11:last"])  # transformers have channels last
    write_features("data/mine", "train", {"image": image, "text": text}, loader)

The loader yields (images, tokens, labels).
"""

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.feature_names import CLASS_NAMES, MODULES, MOST_CHARACTERS, check_class_names
from datasets.features import MODALITIES
from utils.errors import UsageError, printable
from utils.files import whole_file
from utils.pooling import Inputs, module_name, pool
from utils.training.evaluation import eval_mode

SPLITS = ("train", "dev", "test")
MODALITY_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Extractor:
    """Pooled features of a network: outputs of some of its modules, averaged over all but batch and channel.

    An output (B, C, ...) becomes (B, C); with ":last" after the module's name, (B, ..., C) becomes (B, C); with
    ":mean", (B, T, C) becomes the mean (B, C) over the positions that the network's input "attention_mask" (1: a
    token) or "src_key_padding_mask" (True: padding) keeps. Of a tuple, mapping or output object, the first tensor is
    used, for `logits` the one of that name if there is one. The network itself is not changed.

    Args:
        layers: names from `network.named_modules()`, such as "layer1" or "layer2.0"; one feature each.
        logits: name of the module whose output is the class scores; "" is the network itself.

    Raises:
        UsageError: it is not a torch.nn.Module, or has no such module.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], logits: str | None = None) -> None:
        if not isinstance(network, nn.Module):
            raise UsageError(f"the network must be a torch.nn.Module, but is a {type(network).__name__}")
        if isinstance(layers, str) or not layers or not all(isinstance(name, str) for name in layers):
            raise UsageError(f'layers must be a list of module names, such as ["layer1"], but got {layers!r}')
        self.network = network
        self.layers = tuple(layers)
        self.logits = logits
        self._names = self.layers if logits is None else (*self.layers, logits)
        modules = dict(network.named_modules(remove_duplicate=False))
        self._tapped = [_module_named(module_name(name), modules) for name in self._names]

    @torch.no_grad()
    def __call__(self, inputs: object) -> tuple[list[Tensor], Tensor | None]:
        """Compute the features (B, C) in the order of `layers`, and the logits (B, C) or None, as float32.

        The network runs in eval mode and without gradients; afterwards the mode of its modules is restored.

        Args:
            inputs: input of the network: a tensor or array, a list or tuple of arguments, or a mapping of named
                arguments. Tensors are moved to the network's device, and floating-point ones converted to its type.

        Raises:
            UsageError: a module did not run exactly once, its output is not of these shapes, or is a sequence whose
                positions come where channels are expected.
        """
        arguments = Inputs(self.network, inputs)
        outputs: list[list[Tensor]] = [[] for _ in self._names]
        with contextlib.ExitStack() as stack:
            for name, module, kept in zip(self._names, self._tapped, outputs, strict=True):
                is_logits = kept is outputs[-1] and self.logits is not None
                keep = functools.partial(_keep, name, kept, arguments, is_logits)
                stack.callback(module.register_forward_hook(keep).remove)
            stack.enter_context(eval_mode(self.network))
            stack.enter_context(_without_fast_path())
            self.network(*arguments.positional, **arguments.named)
        for name, kept in zip(self._names, outputs, strict=True):
            if not kept:
                raise UsageError(f"module {name!r} did not run: the network's forward does not call it on these inputs")
            if len(kept) > 1:
                raise UsageError(
                    f"module {name!r} must run once in a forward pass, but ran {len(kept)} times; "
                    "name a module around it that runs once"
                )
        pooled = [kept[0] for kept in outputs]
        return pooled[: len(self.layers)], None if self.logits is None else pooled[-1]


def write_features(
    folder: str | Path,
    split: str,
    networks: Mapping[str, Extractor],
    batches: Iterable[Sequence[object]],
    class_names: Sequence[str] | None = None,
) -> Path:
    """Run one pass and write all features, logits and labels to FOLDER/SPLIT.npz.

    Args:
        split: "train", "dev" or "test".
        networks: by name of the modality, in the order of the columns of a configuration.
        batches: (input of the first network, of the second, ..., labels), as from a DataLoader, with samples in any
            order; or a list of one such tuple. Labels are integers (B,), or 0/1 (B, C) for multi-label data.
        class_names: names of the classes, the first of class 0, the same for all splits.

    Returns:
        the file's path. It holds float32 arrays "NAME.0", "NAME.1", ... and "NAME.logits", "label", the names of the
        modules "NAME.modules", and "class_names".

    Raises:
        UsageError: names, batches, labels or features break these rules; nothing is written.
    """
    names = _checked_names(split, networks, class_names)
    columns: dict[str, list[np.ndarray]] = {"label": []}
    for number, batch in enumerate(batches):
        *inputs, labels = _checked_batch(batch, number, list(networks))
        labels = _label_array(labels)
        if columns["label"] and labels.shape[1:] != columns["label"][0].shape[1:]:
            first = columns["label"][0].shape
            raise UsageError(
                "labels must be (B,) in all batches, or (B, C) with as many classes C, but are "
                f"{first} in batch 0 and {labels.shape} in batch {number}"
            )
        columns["label"].append(labels)
        for (name, extractor), x in zip(networks.items(), inputs, strict=True):
            features, logits = extractor(x)
            named = {f"{name}.{i}": feature for i, feature in enumerate(features)} | {f"{name}.logits": logits}
            for column, values in named.items():
                if values is not None:
                    array = _checked(values, labels.shape, f"{column} of batch {number}")
                    others = columns.setdefault(column, [])
                    _check_width(column, number, array, others)
                    others.append(array)
    if not sum(map(len, columns["label"])):
        raise UsageError(f"the batches of {split} contain no samples; note that an iterator can be used only once")
    whole: dict[str, Any] = {column: np.concatenate(parts) for column, parts in columns.items()} | names
    whole["label"] = _whole_labels(whole["label"], names.get(CLASS_NAMES))
    path = Path(folder) / f"{split}.npz"
    with whole_file(path) as file:
        np.savez(file, **whole)
    return path


def _checked_batch(batch: Any, number: int, names: Sequence[str]) -> Sequence[Any]:
    """The batch, if it has one part for each network and the labels."""
    if isinstance(batch, list | tuple) and len(batch) == len(names) + 1:
        return batch
    found = f"{len(batch)} parts" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
    parts = ", ".join([*(f"input of {name}" for name in names), "labels"])
    raise UsageError(f"every batch must be ({parts}), but batch {number} is {found}")


def _module_named(name: str, modules: Mapping[str, nn.Module]) -> nn.Module:
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=5, cutoff=0.5)
        some = ", ".join(list(filter(None, modules))[:8]) or "none"
        hint = f"similar names: {', '.join(near)}" if near else f"it has {some}, ..."
        raise UsageError(f"the network has no module named {name!r}; {hint}")
    return modules[name]


def _keep(
    name: str, kept: list[Tensor], inputs: Inputs, logits: bool, module: nn.Module, args: object, output: object
) -> None:
    """Forward hook: pool the output."""
    kept.append(pool(name, module, output, inputs, logits))


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    """Turn off the fast path of transformers, which in eval mode bypasses their modules and nests padded sequences."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _checked_names(
    split: str, networks: Mapping[str, Extractor], class_names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Arrays of the names of modules and, if they are given, classes."""
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, but got {split!r}")
    if len(networks) not in MODALITIES:
        raise UsageError(f"there must be 2 to 5 networks, but got {len(networks)}")
    for name, extractor in networks.items():
        if not isinstance(extractor, Extractor):
            raise UsageError(f"{name} must be an Extractor of a network, but is a {type(extractor).__name__}")
    with_logits = [name for name, extractor in networks.items() if extractor.logits is not None]
    if len(with_logits) not in (0, len(networks)):
        raise UsageError(f"all networks or none must have logits, but only {', '.join(with_logits)} has them")
    for name in networks:
        if not MODALITY_NAME.fullmatch(name):
            raise UsageError(f"a modality's name must consist of letters, digits, _ and -, but got {name!r}")
    names = {
        f"{name}{MODULES}": np.array([printable(layer)[-MOST_CHARACTERS:] for layer in extractor.layers])
        for name, extractor in networks.items()
    }
    if class_names is None:
        return names
    try:
        return names | {CLASS_NAMES: np.array(check_class_names(class_names))}
    except ValueError as error:
        raise UsageError(f"{CLASS_NAMES} {error}") from None


def _label_array(labels: Any) -> np.ndarray:
    try:
        return torch.as_tensor(labels).cpu().numpy()
    except (TypeError, ValueError):
        raise UsageError(
            "labels must be integers (B,), or 0 and 1 (B, C); number the classes of all splits together, such as "
            "names, numbers = numpy.unique(labels, return_inverse=True), and give the names as class_names"
        ) from None


def _check_width(column: str, number: int, array: np.ndarray, others: Sequence[np.ndarray]) -> None:
    """Check that a batch's values have as many channels as those of the batches before."""
    if others and others[0].shape[1] != array.shape[1]:
        raise UsageError(
            f"{column} must have the same number of channels in all batches, but has {others[0].shape[1]} in batch 0 "
            f"and {array.shape[1]} in batch {number}; for a sequence (B, T, C), append ':last' to the module's name"
        )


def _checked(values: Tensor, labels: tuple[int, ...], where: str) -> np.ndarray:
    """Check pooled values (B, C) of a batch and convert them to an array."""
    if len(labels) not in (1, 2) or len(values) != labels[0]:
        raise UsageError(
            f"labels must be (B,) or (B, C) and {where} must have B rows, but they are {labels} and "
            f"{tuple(values.shape)}; is the batch the first dimension (batch_first=True)?"
        )
    if not values.isfinite().all():
        bad = int((~values.isfinite()).any(dim=1).sum())
        raise UsageError(f"{where} holds NaN or infinity in {bad} of {len(values)} rows")
    return values.cpu().numpy()


def _whole_labels(labels: np.ndarray, class_names: np.ndarray | None) -> np.ndarray:
    """Check labels, and names of classes if any, and convert them to int64: classes (N,), or 0/1 (N, C)."""
    whole = labels.astype(np.int64)
    most = 1 if labels.ndim == 2 else np.inf
    if (whole != labels).any() or whole.min() < 0 or whole.max() > most:
        rule = "(N, C) must be 0 or 1" if labels.ndim == 2 else "(N,) must be classes from 0"
        raise UsageError(f"labels {rule}, but range from {labels.min()} to {labels.max()} as {labels.dtype}")
    number = labels.shape[1] if labels.ndim == 2 else int(whole.max()) + 1
    if class_names is not None and (len(class_names) < number or (labels.ndim == 2 and len(class_names) > number)):
        raise UsageError(f"{CLASS_NAMES} must have a name for each class, but has {len(class_names)} for {number}")
    return whole
