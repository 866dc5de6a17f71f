"""The searchable fusion network: central weights over the features of frozen or trained unimodal networks.

Notation: batch B, classes C, inner size S; feature i of modality m is x_(m,i), D_(m,i) wide. A configuration is a
list of rows (one feature index per modality, activation index), one row per fusion layer. Layer l computes
h_l = activation(W_l [x_1 ; x_2 ; h_(l-1)] + b_l), with dropout after it (MFAS, section 3.1); the central classifier
reads the last h_l.

Parameter names and their order are the published ones. Beyond the paper, there may be any number of modalities, and the
index SKIP leaves a modality out of a layer.
"""

import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from models.lenet import AudioLeNet, ImageLeNet
from models.rows import SKIP
from models.unimodal import UnimodalNetwork

Configuration = Sequence[Sequence[int]]
Outputs = Tensor | tuple[Tensor, ...]

ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.Sigmoid, nn.LeakyReLU, nn.GELU)  # see `models.rows`


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """The shape of the central weights, apart from the configuration."""

    num_outputs: int
    inner_size: int = 16
    dropout: float = 0.5
    batchnorm: bool = False
    alphas: bool = False
    multitask: bool = False
    multi_label: bool = False  # a sample may have any number of classes, each with its own sigmoid
    threshold: float = 0.5  # probability above which a class is predicted, if multi-label
    standardize: bool = False  # subtract each feature column's mean and divide by its deviation


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
    """The columns of a feature table.

    A row holds the features of the first modality, then of the second, and so on, followed by the logits of each
    unimodal network in the same order if `has_logits`.
    """

    widths: tuple[tuple[int, ...], ...]  # widths[m][i] = D_(m,i)
    num_outputs: int
    has_logits: bool = True

    @property
    def _sizes(self) -> list[int]:
        logits = [self.num_outputs] * len(self.widths) if self.has_logits else []
        return [width for modality in self.widths for width in modality] + logits

    @property
    def total(self) -> int:
        return sum(self._sizes)

    @property
    def features(self) -> int:
        """Number of columns before the logits."""
        return sum(width for modality in self.widths for width in modality)

    def columns(self) -> list[list[tuple[int, int]]]:
        """First column and width of each feature, as columns[m][i]."""
        starts = itertools.accumulate((width for modality in self.widths for width in modality), initial=0)
        return [[(next(starts), width) for width in modality] for modality in self.widths]

    def split(self, rows: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Split rows (B, total) into views features[m][i], each (B, D_(m,i)), and logits[m], each (B, C)."""
        parts = list(rows.split(self._sizes, dim=1))
        features = [[parts.pop(0) for _ in modality] for modality in self.widths]
        return features, parts


class CentralWeights(nn.Module):
    """The fusion layers and the central classifier of one configuration, with their published names."""

    def __init__(
        self,
        configuration: Configuration,
        widths: Sequence[Sequence[int]],
        settings: HeadSettings,
        backbones: Mapping[str, nn.Module] = {},
    ) -> None:
        """
        Args:
            configuration: rows (feature index of each modality, activation index).
            widths: widths[m][i] = D_(m,i).
            backbones: networks by name that precede the central weights in the published state_dict.

        Raises:
            ValueError: A row has an index that does not exist, or `settings.alphas` is set and a layer does not read
                exactly two modalities.
        """
        super().__init__()
        for name, network in backbones.items():
            self.add_module(name, network)
        self.settings = settings
        self._initialize(configuration, widths)

    def _initialize(self, configuration: Configuration, widths: Sequence[Sequence[int]]) -> None:
        """Make new central weights, replacing those that exist."""
        settings = self.settings
        _check(configuration, [len(modality) for modality in widths], settings.alphas)
        self.configuration = tuple(tuple(row) for row in configuration)
        # With `settings.alphas`, one number per layer weighs the first modality's feature against the second's.
        self.alphas = nn.ModuleList(nn.ParameterDict({"alpha_x": torch.randn(1) * 0.1}) for _ in configuration)
        self.fusion_layers = nn.ModuleList()
        previous = 0
        for *indices, activation in configuration:
            read = [modality[i] for modality, i in zip(widths, indices, strict=True) if i != SKIP]
            layers = [nn.Linear(sum(read) + previous, settings.inner_size), ACTIVATIONS[activation]()]
            if settings.batchnorm:
                layers.append(nn.BatchNorm1d(settings.inner_size))
            if settings.dropout > 0:
                layers.append(nn.Dropout(settings.dropout))
            self.fusion_layers.append(nn.Sequential(*layers))
            previous = settings.inner_size
        self.central_classifier = nn.Linear(previous, settings.num_outputs)

    def fuse(self, features: Sequence[Sequence[Tensor]], logits: Sequence[Tensor]) -> Outputs:
        """Compute fused logits (B, C) from features[m][i], each (B, D_(m,i)).

        With multitask they are followed by the unimodal networks' logits, last modality first.
        """
        hidden: list[Tensor] = []  # the previous layer's output, if any
        for (*indices, _), alpha, layer in zip(self.configuration, self.alphas, self.fusion_layers, strict=True):
            chosen = [modality[i] for modality, i in zip(features, indices, strict=True) if i != SKIP]
            if self.settings.alphas:
                share = alpha.get_parameter("alpha_x").sigmoid()  # (1,)
                chosen = [chosen[0] * share, chosen[1] * (1 - share)]  # each (B, D_(m,i))
            hidden = [layer(torch.cat(chosen + hidden, dim=1))]  # (B, S)
        fused = self.central_classifier(hidden[0])  # (B, C)
        return (fused, *reversed(logits)) if self.settings.multitask else fused


def _check(configuration: Configuration, sizes: Sequence[int], alphas: bool) -> None:
    limits = [*sizes, len(ACTIVATIONS)]
    for row in configuration:
        if len(row) != len(limits) or row[-1] < 0 or not all(SKIP <= i < n for i, n in zip(row, limits, strict=True)):
            raise ValueError(f"a row needs one index below each of {limits}, but got {list(row)}")
    if alphas and (len(sizes) != 2 or any(SKIP in row for row in configuration)):
        raise ValueError(f"alphas need two features in every layer, but got {len(sizes)} modalities or a skipped one")


class FusionHead(CentralWeights):
    """The central weights of one configuration as a separate network; see `CentralWeights.fuse`."""

    forward = CentralWeights.fuse


class FusionNetwork(CentralWeights):
    """Central weights together with the unimodal networks that feed them."""

    def __init__(
        self,
        backbones: Mapping[str, UnimodalNetwork],
        configuration: Configuration,
        settings: HeadSettings,
        layout: FeatureLayout | None = None,
    ) -> None:
        """
        Args:
            backbones: the unimodal networks by name, in the published order: that of the inputs, last modality first.
            layout: features and logits that `unimodal` returns; None: those of the backbones.
        """
        names = tuple(backbones)[::-1]  # first modality first
        widths = tuple(tuple(backbones[name].feature_widths) for name in names)
        layout = layout or FeatureLayout(widths, settings.num_outputs)
        super().__init__(configuration, layout.widths, settings, backbones)
        self._names, self.feature_layout = names, layout
        if settings.standardize:
            self.register_buffer("feature_mean", torch.zeros(layout.features))
            self.register_buffer("feature_scale", torch.ones(layout.features))

    def with_configuration(self, configuration: Configuration) -> "FusionNetwork":
        """Copy this network, with new central weights for another configuration."""
        other = copy.deepcopy(self)
        other._initialize(configuration, self.feature_layout.widths)
        return other

    def backbones(self) -> list[UnimodalNetwork]:
        """Return the unimodal networks, first modality first."""
        return [getattr(self, name) for name in self._names]

    def unimodal(self, *inputs: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Compute every unimodal network's pooled features[m][i], each (B, D_(m,i)), and logits[m], each (B, C)."""
        pooled = [net.pooled(x) for net, x in zip(self.backbones(), reversed(inputs), strict=True)]
        return [features for features, _ in pooled], [logits for _, logits in pooled]

    def feature_rows(self, *inputs: Tensor) -> Tensor:
        """Compute the rows (B, total) of a batch, laid out as `feature_layout`."""
        features, logits = self.unimodal(*inputs)
        return torch.cat([x for modality in features for x in modality] + logits, dim=1)

    def modality_input(self, modality: int) -> tuple[int, slice]:
        """Return the index of the input that holds a modality, and the modality's columns in it (dimension 1)."""
        return len(self._names) - 1 - modality, slice(None)

    def central_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the search trains."""
        return [p for part in (self.alphas, self.fusion_layers, self.central_classifier) for p in part.parameters()]

    def forward(self, *inputs: Tensor) -> Outputs:
        features, logits = self.unimodal(*inputs)
        return self.fuse(self._standardized(features) if self.settings.standardize else features, logits)

    def _standardized(self, features: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Standardize features[m][i], each (B, D_(m,i))."""
        both = zip(features, self.feature_layout.columns(), strict=True)
        return [[self._standard(x, *span) for x, span in zip(*one, strict=True)] for one in both]

    def _standard(self, x: Tensor, first: int, width: int) -> Tensor:
        columns = slice(first, first + width)
        return (x - self.get_buffer("feature_mean")[columns]) / self.get_buffer("feature_scale")[columns]


class LateFusion(nn.Module):
    """Unimodal networks without central weights: the sum of their log-softmax (B, C); if multi-label, of their logits.

    Inputs are those of the fusion network, last modality first.
    """

    def __init__(self, networks: Sequence[UnimodalNetwork], settings: HeadSettings) -> None:
        super().__init__()
        self.networks = tuple(networks)
        self.settings = settings
        for i, network in enumerate(networks):
            self.add_module(str(i), network)

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs = [net.pooled(x)[1] for net, x in zip(self.networks, reversed(inputs), strict=True)]  # each (B, C)
        return torch.stack(outputs if self.settings.multi_label else [one.log_softmax(-1) for one in outputs]).sum(0)


class FeatureRows(nn.Module):
    """The unimodal networks of a fusion network as a separate module, for DataParallel."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network.feature_rows(*inputs)  # (B, total)


class AudioImageNetwork(FusionNetwork):
    """AV-MNIST: audio is the first modality of a row, image the second.

    Inputs are images (B, 1, 28, 28) and spectrograms (B, 1, 112, 112), in the published order.
    """

    def __init__(self, configuration: Configuration, settings: HeadSettings, channels: int = 3) -> None:
        image, audio = ImageLeNet(channels, settings.num_outputs), AudioLeNet(channels, settings.num_outputs)
        super().__init__({"rgbnet": image, "audnet": audio}, configuration, settings)


class SkeletonRGBNetwork(FusionNetwork):
    """NTU RGB+D: skeleton is the first modality of a row, RGB the second.

    Inputs are clips (B, T, H, W, 3) and skeletons (B, 3, T, 25, 2), in the published order.
    """

    def __init__(self, configuration: Configuration, settings: HeadSettings, skeleton_frames: int = 32) -> None:
        rgb = InflatedResNet50(settings.num_outputs)
        skeleton = SkeletonNet(settings.num_outputs, skeleton_frames, settings.dropout)  # published: --drpt for both
        super().__init__({"rgbnet": rgb, "skenet": skeleton}, configuration, settings)


class FeatureNetwork(FusionNetwork):
    """Central weights over the rows of a feature table, whose unimodal networks ran elsewhere."""

    def __init__(self, configuration: Configuration, layout: FeatureLayout, settings: HeadSettings) -> None:
        super().__init__({}, configuration, settings, layout)

    def unimodal(self, *inputs: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        (rows,) = inputs  # (B, total)
        return self.feature_layout.split(rows)

    def over_features(self) -> "FeatureNetwork":
        """Copy this network for rows without logits, which the central weights do not read."""
        alone = copy.deepcopy(self)
        alone.feature_layout = dataclasses.replace(self.feature_layout, has_logits=False)
        return alone

    def modality_input(self, modality: int) -> tuple[int, slice]:
        columns = self.feature_layout.columns()[modality]
        return 0, slice(columns[0][0], sum(columns[-1]))
