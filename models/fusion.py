"""The searchable fusion network: central weights over the features of frozen or trained unimodal networks.

Notation: a configuration is a list of rows (one feature index per modality, activation index), one row per fusion
layer; layer l computes h_l = activation(W_l [x_1 ; x_2 ; h_(l-1)] + b_l), with dropout after it (MFAS, section 3.1).
Parameter names are the published ones. New here: any number of modalities, and the index SKIP, which leaves a modality
out of a layer.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from models.lenet import AudioLeNet, ImageLeNet

Configuration = Sequence[Sequence[int]]

ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.Sigmoid, nn.LeakyReLU, nn.GELU)
ACTIVATION_NAMES = ("relu", "sigmoid", "leaky_relu", "gelu")
SKIP = -1


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """What the central weights look like, apart from the configuration."""

    num_outputs: int
    inner_size: int = 16
    dropout: float = 0.5
    batchnorm: bool = False
    alphas: bool = False
    multitask: bool = False
    multi_label: bool = False  # any number of classes at once, each with a sigmoid of its own


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
    """Where each pooled feature and each unimodal net's logits stand in one row of a feature table.

    A row holds the features of the first modality, then of the second, ..., then the logits of the first net, of the
    second, ... where there are any.
    """

    widths: tuple[tuple[int, ...], ...]  # per modality, per feature
    num_outputs: int
    has_logits: bool = True

    @property
    def _sizes(self) -> list[int]:
        logits = [self.num_outputs] * len(self.widths) if self.has_logits else []
        return [width for modality in self.widths for width in modality] + logits

    @property
    def total(self) -> int:
        return sum(self._sizes)

    def split(self, rows: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Views of rows (B, total): features[modality][index] (B, width), and logits[modality] (B, C)."""
        parts = list(rows.split(self._sizes, dim=1))
        features = [[parts.pop(0) for _ in modality] for modality in self.widths]
        return features, parts


class Alpha(nn.Module):
    """One number that weighs the first modality's feature against the second's (used with `--alphas`)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha_x = nn.Parameter(torch.randn(1) * 0.1)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        first, second = features
        share = torch.sigmoid(self.alpha_x)
        return [first * share, second * (1 - share)]


class FusionHead(nn.Module):
    """The central weights of one configuration."""

    shape_flags: ClassVar = {
        "num_outputs": ("central_classifier.weight", 0),
        "inner_representation_size": ("central_classifier.weight", 1),
    }

    def __init__(self, configuration: Configuration, widths: Sequence[Sequence[int]], settings: HeadSettings) -> None:
        """
        Args:
            configuration: rows (feature index of each modality, activation index).
            widths: widths[modality][index] of the pooled features.

        Raises:
            ValueError: a row has an index that does not exist, or alphas are asked for with other than two modalities.
        """
        super().__init__()
        self.add_central_weights(configuration, widths, settings)

    def add_central_weights(
        self, configuration: Configuration, widths: Sequence[Sequence[int]], settings: HeadSettings
    ) -> None:
        sizes = [len(modality) for modality in widths]
        for row in configuration:
            if len(row) != len(sizes) + 1 or not (
                all(SKIP <= i < n for i, n in zip(row, sizes, strict=False)) and 0 <= row[-1] < len(ACTIVATIONS)
            ):
                raise ValueError(
                    f"a row needs one index below each of {[*sizes, len(ACTIVATIONS)]}, but got {list(row)}"
                )
        if settings.alphas and (len(sizes) != 2 or any(SKIP in row for row in configuration)):
            raise ValueError(
                f"alphas weigh two features in every layer; here are {len(sizes)} modalities, or some skipped"
            )
        self.configuration = tuple(tuple(row) for row in configuration)
        self.settings = settings
        self.alphas = nn.ModuleList(Alpha() for _ in configuration)
        self.fusion_layers = nn.ModuleList()
        previous = 0
        for *indices, activation in configuration:
            read = [modality[i] for modality, i in zip(widths, indices, strict=True) if i != SKIP]
            width = sum(read) + previous
            layers: list[nn.Module] = [nn.Linear(width, settings.inner_size), ACTIVATIONS[activation]()]
            if settings.batchnorm:
                layers.append(nn.BatchNorm1d(settings.inner_size))
            if settings.dropout > 0:
                layers.append(nn.Dropout(settings.dropout))
            self.fusion_layers.append(nn.Sequential(*layers))
            previous = settings.inner_size
        self.central_classifier = nn.Linear(previous, settings.num_outputs)

    def fuse(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Logits (B, C) from features[modality][index], each (B, width)."""
        hidden: list[Tensor] = []
        for (*indices, _), alpha, layer in zip(self.configuration, self.alphas, self.fusion_layers, strict=True):
            chosen = [modality[i] for modality, i in zip(features, indices, strict=True) if i != SKIP]  # each (B, D_i)
            if self.settings.alphas:
                chosen = alpha(chosen)
            hidden = [layer(torch.cat(chosen + hidden, dim=1))]  # (B, S)
        return self.central_classifier(hidden[0])  # (B, C)

    def outputs(self, fused: Tensor, logits: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """The fused logits; with multitask followed by the unimodal nets' logits, last modality first."""
        return (fused, *reversed(logits)) if self.settings.multitask else fused

    def forward(self, features: Sequence[Sequence[Tensor]], logits: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return self.outputs(self.fuse(features), logits)

    def central_parameters(self) -> list[nn.Parameter]:
        """The weights that the search trains."""
        central = (self.alphas, self.fusion_layers, self.central_classifier)
        return [p for module in central for p in module.parameters()]


class FusionNetwork(FusionHead):
    """Central weights together with the unimodal networks that feed them; subclasses name the networks."""

    def unimodal(self, *inputs: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Pooled features and logits of every unimodal network, first modality first."""
        raise NotImplementedError

    def backbones(self) -> list[nn.Module]:
        """The unimodal networks, first modality first."""
        raise NotImplementedError

    @property
    def feature_layout(self) -> FeatureLayout:
        """Of what `feature_rows` gives."""
        return FeatureLayout(tuple(tuple(net.feature_widths) for net in self.backbones()), self.settings.num_outputs)

    def feature_rows(self, *inputs: Tensor) -> Tensor:
        """The rows (B, total) of a batch: all features by modality, then the logits by modality."""
        features, logits = self.unimodal(*inputs)
        return torch.cat([x for modality in features for x in modality] + list(logits), dim=1)

    def modality_input(self, modality: int) -> tuple[int, slice]:
        """Which of the inputs is a modality's, and which of its columns (dimension 1)."""
        return len(self.backbones()) - 1 - modality, slice(None)  # as published, the inputs go the other way round

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        features, logits = self.unimodal(*inputs)
        return self.outputs(self.fuse(features), logits)


class FeatureRows(nn.Module):
    """The unimodal networks of a fusion network alone, as a module that DataParallel can spread."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network.feature_rows(*inputs)


class AudioImageNetwork(FusionNetwork):
    """AV-MNIST: audio is the first modality of a row, image the second; inputs are (image, audio) as published."""

    def __init__(self, configuration: Configuration, settings: HeadSettings, channels: int = 3) -> None:
        nn.Module.__init__(self)  # the backbones come first in the published state_dict
        self.rgbnet = ImageLeNet(channels, settings.num_outputs)
        self.audnet = AudioLeNet(channels, settings.num_outputs)
        widths = (self.audnet.feature_widths, self.rgbnet.feature_widths)
        self.add_central_weights(configuration, widths, settings)

    def backbones(self) -> list[nn.Module]:
        return [self.audnet, self.rgbnet]

    def unimodal(self, image: Tensor, audio: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        audio_features, audio_logits = self.audnet.pooled(audio)  # (B, 1, 112, 112) -> 5 x (B, D_i), (B, C)
        image_features, image_logits = self.rgbnet.pooled(image)  # (B, 1, 28, 28) -> 3 x (B, D_i), (B, C)
        return [audio_features, image_features], [audio_logits, image_logits]


class SkeletonRGBNetwork(FusionNetwork):
    """NTU RGB+D: skeleton is the first modality of a row, RGB the second; inputs are (rgb, skeleton) as published."""

    def __init__(self, configuration: Configuration, settings: HeadSettings, skeleton_frames: int = 32) -> None:
        nn.Module.__init__(self)  # the backbones come first in the published state_dict
        self.rgbnet = InflatedResNet50(settings.num_outputs)
        self.skenet = SkeletonNet(settings.num_outputs, skeleton_frames, settings.dropout)  # --drpt is its rate, too
        widths = (self.skenet.feature_widths, self.rgbnet.feature_widths)
        self.add_central_weights(configuration, widths, settings)

    def backbones(self) -> list[nn.Module]:
        return [self.skenet, self.rgbnet]

    def unimodal(self, rgb: Tensor, skeleton: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        skeleton_features, skeleton_logits = self.skenet.pooled(skeleton)  # (B, 3, T, 25, 2) -> 4 x (B, D_i), (B, C)
        rgb_features, rgb_logits = self.rgbnet.pooled(rgb)  # (B, T, H, W, 3) -> 4 x (B, D_i), (B, C)
        return [skeleton_features, rgb_features], [skeleton_logits, rgb_logits]


class FeatureNetwork(FusionNetwork):
    """Central weights over the rows of a feature table: unimodal networks that ran elsewhere."""

    def __init__(self, configuration: Configuration, layout: FeatureLayout, settings: HeadSettings) -> None:
        FusionHead.__init__(self, configuration, layout.widths, settings)
        self.layout = layout

    def backbones(self) -> list[nn.Module]:
        return []

    @property
    def feature_layout(self) -> FeatureLayout:
        return self.layout

    def unimodal(self, rows: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        return self.layout.split(rows)  # (B, layout.total) -> by modality each (B, D_i); (B, C) each

    def over_features(self) -> "FeatureNetwork":
        """A copy whose rows end with the features: logits are no input of the central weights."""
        alone = copy.deepcopy(self)
        alone.layout = dataclasses.replace(self.layout, has_logits=False)
        return alone

    def modality_input(self, modality: int) -> tuple[int, slice]:
        ends = list(itertools.accumulate(map(sum, self.layout.widths), initial=0))
        return 0, slice(ends[modality], ends[modality + 1])
