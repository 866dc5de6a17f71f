"""Many fusion heads trained together as one module.

Notation, beyond that of `models.fusion`: K candidates; layer l exists in the first K_l of them, because candidates are
kept longest first. A pair is one fusion layer of one candidate; the P pairs are ordered by layer, then candidate.

The terms W_l [x_1 ; x_2 ; ...] of all pairs are one matrix product: each pair has a weight for every column of the
feature table, and a mask with 1 for the columns that it reads. The other weights stay zero in training. Only the
recurrence U_l h_(l-1) is computed layer by layer. Samples come last in every array, (P, S, B).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import dropout
from models.fusion import FeatureLayout, FusionHead, Outputs
from models.rows import SKIP

OTHERS = ((2, F.leaky_relu), (3, F.gelu))  # activations besides ReLU and sigmoid, by index
NORM = ("weight", "bias", "running_mean", "running_var")  # state of a batch norm, one number per unit in each


class Population(nn.Module):
    """The central weights of several configurations; each member trains as it would alone.

    Members share nothing but the batches: the gradient of the sum of their losses is the gradient of each, element-wise
    optimizers keep them apart, and batch norm and dropout act on each member's own units.
    """

    reads: Tensor  # 1 for the columns that each pair reads, by modality, (modalities, P, 1, D)
    activation: Tensor  # index of each pair's activation, (P, 1, 1)
    layers: Tensor  # layer of each pair, (P,)
    members: Tensor  # place in the step of each pair's candidate, (P,)
    ends: Tensor  # last pair of each candidate, (K,)
    places: Tensor  # candidate (longest first) of each member, (K,)

    def __init__(self, heads: Sequence[FusionHead], layout: FeatureLayout, place: int = 0) -> None:
        """Copy the weights of `heads`, which must have equal settings.

        Args:
            place: of the first head in its step; dropout depends on it.
        """
        super().__init__()
        self.layout, self.settings = layout, heads[0].settings
        order = sorted(range(len(heads)), key=lambda k: -len(heads[k].configuration))  # members, longest first
        self.configurations = [heads[k].configuration for k in order]
        depth = len(self.configurations[0])
        self.alive = [sum(len(c) > layer for c in self.configurations) for layer in range(depth)]  # K_l
        self.starts = [sum(self.alive[:layer]) for layer in range(depth)]  # first pair of each layer
        self.pairs = [(layer, k) for layer, count in enumerate(self.alive) for k in range(count)]
        rows = [self.configurations[k][layer] for layer, k in self.pairs]
        numbers = {
            "activation": torch.tensor([row[-1] for row in rows]).reshape(-1, 1, 1),
            "layers": torch.tensor([layer for layer, _ in self.pairs]),
            "members": torch.tensor([place + order[k] for _, k in self.pairs]),
            "ends": torch.tensor([self.starts[len(c) - 1] + k for k, c in enumerate(self.configurations)]),
            "places": torch.tensor(order).argsort(),
            "reads": self._columns_read(rows),
        }
        for name, values in numbers.items():
            self.register_buffer(name, values, persistent=False)
        self.others = [(number, other) for number, other in OTHERS if (self.activation == number).any()]
        self._add_weights([heads[k].state_dict() for k in order])
        self.start_pass(0)

    def _columns_read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        columns = self.layout.columns()
        reads = torch.zeros(len(columns), len(rows), 1, self.layout.features)
        for pair, row in enumerate(rows):
            for m, i in enumerate(row[:-1]):
                if i != SKIP:
                    start, width = columns[m][i]
                    reads[m, pair, 0, start : start + width] = 1
        return reads

    def _add_weights(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Stack the central weights of the candidates, given by name."""
        size = self.settings.inner_size

        def layers(name: str) -> list[Tensor]:
            return [states[k][f"fusion_layers.{layer}.{name}"] for layer, k in self.pairs]

        def stack(tensors: list[Tensor]) -> nn.Parameter:
            return nn.Parameter(torch.stack(tensors))

        first, recurrent = torch.zeros(len(self.pairs), size, self.layout.features), []
        for pair, weight in enumerate(layers("0.weight")):
            read = self._read_by(pair)
            first[pair][:, read] = weight[:, : read.sum()]
            if pair >= self.alive[0]:
                recurrent.append(weight[:, read.sum() :])
        self.first = nn.Parameter(first)  # (P, S, D)
        self.biases = stack(layers("0.bias"))  # (P, S)
        self.recurrent = stack(recurrent) if recurrent else nn.Parameter(torch.empty(0, size, size))  # (P - K, S, S)
        self.classifier_weight = stack([state["central_classifier.weight"] for state in states])  # (K, C, S)
        self.classifier_bias = stack([state["central_classifier.bias"] for state in states])  # (K, C)
        self.alphas = stack([states[k][f"alphas.{layer}.alpha_x"] for layer, k in self.pairs])  # (P, 1)
        if self.settings.batchnorm:  # a layer's candidates share one batch norm over the units of all, (K_l S,)
            self.norms = nn.ModuleList(nn.BatchNorm1d(count * size) for count in self.alive)
            joined = {name: torch.stack(layers(f"2.{name}")).split(self.alive) for name in NORM}
            for number, norm in enumerate(self.norms):
                state = {name: values[number].flatten() for name, values in joined.items()}
                counted = states[0][f"fusion_layers.{number}.2.num_batches_tracked"]
                norm.load_state_dict(state | {"num_batches_tracked": counted})

    def _read_by(self, pair: int) -> Tensor:
        """Columns of the feature table that a pair reads, as booleans (D,)."""
        return self.reads[:, pair, 0].sum(0) > 0

    def start_pass(self, seed: int) -> None:
        """Start a training pass: its dropout masks derive from the seed."""
        self.seed, self.batch = seed, 0

    def masks(self, steps: int, size: int) -> Tensor | None:
        """Draw the dropout masks (steps, P, S, B) of the next batches of B = `size` samples; None without dropout."""
        if self.settings.dropout == 0:
            return None
        batches = torch.arange(self.batch, self.batch + steps, device=self.layers.device)
        self.batch += steps
        units = self.settings.inner_size
        return dropout.masks(self.settings.dropout, self.seed, batches, self.layers, self.members, units, size)

    def _first_terms(self, features: Tensor) -> Tensor:
        """Sum W_l x over modalities for each pair, (P, S, B), from features (B, D)."""
        shares = self.reads
        if self.settings.alphas:
            share = self.alphas.sigmoid().unsqueeze(2)  # (P, 1, 1)
            shares = self.reads * torch.stack([share, 1 - share])
        weights = self.first * shares.sum(0)  # (P, S, D)
        return (weights.flatten(0, 1) @ features.T).view(len(self.pairs), -1, len(features))

    def _rectify(self, z: Tensor, activation: Tensor) -> Tensor:
        """Apply ReLU to a layer's z (K_l, S, B), or leaky ReLU or GELU where `activation` (K_l, 1, 1) says so."""
        rectified = F.relu(z)
        for number, other in self.others:
            rectified = torch.where(activation == number, other(z), rectified)
        return rectified

    def fuse(self, features: Tensor, masks: Tensor | None = None) -> Tensor:
        """Compute the logits (K, B, C) of the members, in the order of the given heads.

        Args:
            features: (B, D).
            masks: dropout masks (P, S, B); in training mode, None draws those of the next batch.
        """
        first = self._first_terms(features) + self.biases.unsqueeze(2)  # (P, S, B)
        if masks is None and self.training and (drawn := self.masks(1, len(features))) is not None:
            masks = drawn[0]
        kept = None if masks is None else masks.to(first.dtype).split(self.alive)
        activations, recurrent = self.activation.split(self.alive), self.recurrent.split(self.alive[1:])
        hidden: list[Tensor] = []  # by layer
        for number, (z, activation) in enumerate(zip(first.split(self.alive), activations, strict=True)):
            if number:
                z = torch.baddbmm(z, recurrent[number - 1], hidden[-1][: len(z)])  # (K_l, S, B)
            h = torch.where(activation == 1, z.sigmoid(), self._rectify(z, activation))
            if self.settings.batchnorm:
                h = self.norms[number](h.flatten(0, 1).T).T.view_as(h)  # over (B, K_l S)
            hidden.append(h if kept is None else h * kept[number])
        last = torch.cat(hidden).index_select(0, self.ends)  # (K, S, B)
        logits = torch.baddbmm(self.classifier_bias.unsqueeze(2), self.classifier_weight, last)  # (K, C, B)
        return logits.index_select(0, self.places).transpose(1, 2)  # (K, B, C)

    def forward(self, rows: Tensor, masks: Tensor | None = None) -> Outputs:
        """Compute logits (K, B, C) from rows (B, layout.total); with multitask the unimodal networks' logits follow."""
        fused = self.fuse(rows[:, : self.layout.features], masks)
        return (fused, *reversed(self.layout.split(rows)[1])) if self.settings.multitask else fused

    @torch.no_grad()
    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return the central weights of one member under their published names, as its own `FusionHead` holds them."""
        k, size = int(self.places[member]), self.settings.inner_size
        state: dict[str, Tensor] = {}
        for number in range(len(self.configurations[k])):
            pair, layer = self.starts[number] + k, f"fusion_layers.{number}"
            columns = [self.first[pair][:, self._read_by(pair)]]  # (S, D_l)
            if number:
                columns.append(self.recurrent[pair - self.alive[0]])  # (S, S)
            state[f"alphas.{number}.alpha_x"] = self.alphas[pair]
            state[f"{layer}.0.weight"] = torch.cat(columns, dim=1)
            state[f"{layer}.0.bias"] = self.biases[pair]
            if self.settings.batchnorm:
                norm = self.norms[number].state_dict()
                for name in NORM:
                    state[f"{layer}.2.{name}"] = norm[name][k * size : (k + 1) * size]
                state[f"{layer}.2.num_batches_tracked"] = norm["num_batches_tracked"]
        state["central_classifier.weight"] = self.classifier_weight[k]
        state["central_classifier.bias"] = self.classifier_bias[k]
        return {name: value.clone() for name, value in state.items()}


class LivePopulation(nn.Module):
    """A population and the unimodal networks that feed it; one pass through them serves all members."""

    def __init__(self, population: Population, backbones: Sequence[nn.Module], rows: Callable[..., Tensor]) -> None:
        """`rows` computes rows (B, layout.total) with the backbones, whose mode and state belong to this module."""
        super().__init__()
        self.population, self.backbones = population, nn.ModuleList(backbones)
        self._rows = (rows,)  # not registered, so that the state's names do not depend on what runs the backbones

    def forward(self, *inputs: Tensor) -> Outputs:
        """Compute logits (K, B, C) from the inputs of the unimodal networks; see `Population.forward`."""
        with torch.no_grad():
            rows = self._rows[0](*inputs)  # (B, layout.total)
        return self.population(rows)
