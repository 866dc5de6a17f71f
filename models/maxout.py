"""Networks over vectors: a Maxout MLP, and the classifier of VGG-19's pooled maps; those of MM-IMDB.

Notation: batch B, inputs D, first hidden size H, classes C.
"""

from torch import Tensor, nn

from models.unimodal import UnimodalNetwork

PIECES = 5  # linear functions of which a maxout unit takes the largest
VGG_WIDTH, VGG_STAGES = 512, 4


class Maxout(nn.Module):
    """Units that are the largest of several linear functions (Goodfellow et al., 2013)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units * PIECES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, (-1, PIECES)).amax(-1)  # (B, units)


class MaxoutMLP(UnimodalNetwork):
    """Two layers of H and 2H maxout units, which are the features, each with batch norm and dropout behind it."""

    def __init__(self, inputs: int, num_outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.feature_widths = (hidden, 2 * hidden)
        self.norm = nn.BatchNorm1d(inputs)
        self.maxout1, self.maxout2 = Maxout(inputs, hidden), Maxout(hidden, 2 * hidden)
        self.between = nn.Sequential(nn.BatchNorm1d(hidden), nn.Dropout(0.5))
        self.classifier = nn.Sequential(nn.BatchNorm1d(2 * hidden), nn.Dropout(0.5), nn.Linear(2 * hidden, num_outputs))

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        first = self.maxout1(self.norm(x))  # (B, H)
        second = self.maxout2(self.between(first))  # (B, 2H)
        return [first, second], self.classifier(second)  # (B, C)


class VGGClassifier(UnimodalNetwork):
    """A linear classifier of the last of VGG-19's pooled maps, which are side by side in a vector (B, 4 x 512)."""

    feature_widths = (VGG_WIDTH,) * VGG_STAGES

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Identity() for _ in range(VGG_STAGES))  # names for the features
        self.classifier = nn.Sequential(nn.BatchNorm1d(VGG_WIDTH), nn.Linear(VGG_WIDTH, num_outputs))

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features = [stage(part) for stage, part in zip(self.stages, x.split(VGG_WIDTH, dim=1), strict=True)]
        return features, self.classifier(features[-1])  # each (B, 512), (B, C)
