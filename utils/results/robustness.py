"""How a fusion network does where a modality is missing or noisy: test accuracy with one of its inputs disturbed."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.seeds import generator
from utils.training.batches import Batch, Split
from utils.training.loop import predict
from utils.training.metrics import accuracy

LEVELS = (0.5, 1.0, 2.0)  # standard deviations of the noise, in those of the input
SCALE_SAMPLES = 512  # from which an input's own deviation is told


@dataclasses.dataclass(frozen=True)
class DisturbedSplit:
    """A split one of whose modalities is muted (zeros), or has normal noise on it that derives from the seed."""

    split: Split
    place: int  # of the input
    columns: slice  # of the input that belong to the modality
    noise: Tensor | None  # standard deviation, of every column or of all; None: muted
    seed: tuple[int | str, ...]

    @property
    def labels(self) -> Tensor:
        return self.split.labels

    @property
    def evaluation_batch(self) -> int:
        return self.split.evaluation_batch

    def batches(self, batch_size: int) -> Iterator[Batch]:
        draw = generator(*self.seed)
        for inputs, labels in self.split.batches(batch_size):
            x = inputs[self.place].clone()
            part = x[:, self.columns]
            if self.noise is None:
                part.zero_()
            else:
                part += self.noise * torch.randn(part.shape, generator=draw).to(part)
            yield (*inputs[: self.place], x, *inputs[self.place + 1 :]), labels


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
            disturbed = DisturbedSplit(test, place, columns, noise, (seed, "noise", modality))
            rows.append(
                {"modality": name, "noise": level, "test": float(accuracy(predict(model, disturbed), test.labels))}
            )
    return rows


def _deviation(split: Split, place: int, columns: slice) -> Tensor:
    """The standard deviation of the columns of features (B, D), of other inputs that of all their values."""
    parts, count = [], 0
    for inputs, labels in split.batches(split.evaluation_batch):
        parts.append(inputs[place][:, columns])
        count += len(labels)
        if count >= SCALE_SAMPLES:
            break
    values = torch.cat(parts)
    return values.std(dim=0, correction=0) if values.ndim == 2 else values.std(correction=0)  # 0 of one sample


def format_missing(rows: Sequence[dict[str, object]], whole: float) -> str:
    """The results as aligned text, beside the accuracy with nothing missing."""
    width = max(len(str(row["modality"])) for row in rows)
    heading = "".join(f"{f'noise {level:g}':>11}" for level in LEVELS)
    lines = [f"{'':{width}}  untouched      muted{heading}"]
    for start in range(0, len(rows), 1 + len(LEVELS)):
        reached = "".join(f"{row['test']:11.4f}" for row in rows[start : start + 1 + len(LEVELS)])
        lines.append(f"{rows[start]['modality']:{width}}{whole:11.4f}{reached}")
    return "\n".join(lines)
