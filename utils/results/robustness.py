"""Robustness of a fusion network: test accuracy with one modality muted or noisy."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.training.batches import Batch, Split, generator
from utils.training.evaluation import eval_mode
from utils.training.metrics import accuracy, scores

LEVELS = (0.5, 1.0, 2.0)  # standard deviations of the noise, in units of the input's standard deviation
SCALE_SAMPLES = 512  # samples from which the input's standard deviation is estimated


def disturbed_batches(
    split: Split, place: int, columns: slice, noise: Tensor | None, draw: torch.Generator
) -> Iterator[Batch]:
    """Batches of a split with one modality disturbed.

    Args:
        place: of the input.
        columns: of the input that belong to the modality.
        noise: standard deviation of normal noise, of each column or of all; None: the columns are set to zero.
        draw: draws the noise.
    """
    for inputs, labels in split.batches(split.evaluation_batch):
        x = inputs[place].clone()
        part = x[:, columns]
        if noise is None:
            part.zero_()
        else:
            part += noise * torch.randn(part.shape, generator=draw).to(part)
        yield (*inputs[:place], x, *inputs[place + 1 :]), labels


@torch.no_grad()
def evaluate_missing(
    network: FusionNetwork, model: nn.Module, test: Split, names: Sequence[str], seed: int
) -> list[dict[str, object]]:
    """Test accuracy with each modality muted, then at each level of noise: {modality, noise (None: muted), test}."""
    rows: list[dict[str, object]] = []
    for modality, name in enumerate(names):
        place, columns = network.modality_input(modality)
        deviation = _deviation(test, place, columns)
        for level in (None, *LEVELS):
            noise = None if level is None else level * deviation
            batches = disturbed_batches(test, place, columns, noise, generator(seed, "noise", modality))
            with eval_mode(model):
                predicted = torch.cat([scores(model(*inputs), network.settings.threshold) for inputs, _ in batches])
            rows.append({"modality": name, "noise": level, "test": float(accuracy(predicted, test.labels))})
    return rows


def _deviation(split: Split, place: int, columns: slice) -> Tensor:
    """Standard deviation of each column of features (B, D), or of all values of other inputs."""
    batches = islice(split.batches(split.evaluation_batch), -(-SCALE_SAMPLES // split.evaluation_batch))
    values = torch.cat([inputs[place][:, columns] for inputs, _ in batches])
    return values.std(dim=0, correction=0) if values.ndim == 2 else values.std(correction=0)  # 0 for one sample


def format_missing(rows: Sequence[dict[str, object]], whole: float) -> str:
    """The results as aligned text, next to the accuracy with all modalities untouched."""
    width = max(len(str(row["modality"])) for row in rows)
    heading = "".join(f"{f'noise {level:g}':>11}" for level in LEVELS)
    lines = [f"{'':{width}}  untouched      muted{heading}"]
    for start in range(0, len(rows), 1 + len(LEVELS)):
        reached = "".join(f"{row['test']:11.4f}" for row in rows[start : start + 1 + len(LEVELS)])
        lines.append(f"{rows[start]['modality']:{width}}{whole:11.4f}{reached}")
    return "\n".join(lines)
