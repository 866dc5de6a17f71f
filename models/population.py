"""Many fusion heads trained together as one module.

Notation, beyond that of `models.fusion`: K candidates; layer l exists in the first K_l of them, because candidates are
kept longest first. A pair p is one fusion layer of one candidate; the P pairs are ordered by layer, then candidate.
`readers[m][i]` lists the R_(m,i) pairs whose row reads feature i of modality m.

The terms W_l [x_1 ; x_2 ; ...] do not depend on other layers, so all readers of a feature share one matrix product.
Only the recurrence U_l h_(l-1) is batched over candidates, layer by layer. Samples come last in every array, (K, S, B),
so that everything that belongs to a pair is contiguous in memory.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion import SKIP, FeatureLayout, FusionHead, Outputs

OTHERS = ((2, F.leaky_relu), (3, F.gelu))  # activations besides ReLU and sigmoid, by index
NORM = ("weight", "bias", "running_mean", "running_var")  # state of a batch norm, one number per unit in each


class Population(nn.Module):
    """The central weights of several configurations; each member trains as it would alone.

    Members share nothing but the batches: the gradient of the sum of their losses is the gradient of each, element-wise
    optimizers keep them apart, and batch norm and dropout act on each member's own units.
    """

    activation: Tensor  # index of each pair's activation, (P, 1, 1)
    ends: Tensor  # last pair of each candidate, (K,)
    places: Tensor  # candidate (longest first) of each member, (K,)

    def __init__(self, heads: Sequence[FusionHead], layout: FeatureLayout) -> None:
        """Copy the weights of `heads`, which must have equal settings."""
        super().__init__()
        self.layout, self.settings = layout, heads[0].settings
        order = sorted(range(len(heads)), key=lambda k: -len(heads[k].configuration))  # members, longest first
        self.configurations = [heads[k].configuration for k in order]
        depth = len(self.configurations[0])
        self.alive = [sum(len(c) > layer for c in self.configurations) for layer in range(depth)]  # K_l
        self.starts = [sum(self.alive[:layer]) for layer in range(depth)]  # first pair of each layer
        self.pairs = [(layer, k) for layer, count in enumerate(self.alive) for k in range(count)]
        rows = torch.tensor([self.configurations[k][layer] for layer, k in self.pairs])  # (P, modalities + 1)
        self.register_buffer("activation", rows[:, -1].reshape(-1, 1, 1), persistent=False)
        self.others = [(number, other) for number, other in OTHERS if (rows[:, -1] == number).any()]
        ends = torch.tensor([self.starts[len(c) - 1] + k for k, c in enumerate(self.configurations)])
        self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("places", torch.tensor(order).argsort(), persistent=False)
        self._add_readers(rows[:, :-1])
        self._add_weights([heads[k].state_dict() for k in order])

    def _add_readers(self, chosen: Tensor) -> None:
        """Register which pairs read each feature, and for each modality the order of the products.

        The products of a modality, (R + 1, S, B), are ordered by feature, then pair; a last block of zeros serves the
        pairs that skip the modality. `gather_m` (P,) orders them by pair, `scatter_m` (R,) by feature again.

        Args:
            chosen: feature index of each pair and modality, (P, modalities).
        """
        self.readers: list[dict[int, list[int]]] = []
        for m, widths in enumerate(self.layout.widths):
            readers = {i: (chosen[:, m] == i).nonzero().flatten() for i in range(len(widths))}  # (R_(m,i),) each
            scatter = torch.cat(list(readers.values()))
            gather = torch.full((len(chosen),), len(scatter))
            gather[scatter] = torch.arange(len(scatter))
            self.readers.append({i: pairs.tolist() for i, pairs in readers.items() if len(pairs)})
            self.register_buffer(f"gather_{m}", gather, persistent=False)
            self.register_buffer(f"scatter_{m}", scatter, persistent=False)

    def _add_weights(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Stack the central weights of the candidates, given by name."""

        def layers(name: str) -> list[Tensor]:
            return [states[k][f"fusion_layers.{layer}.{name}"] for layer, k in self.pairs]

        def stack(tensors: list[Tensor]) -> nn.Parameter:
            return nn.Parameter(torch.stack(tensors))

        columns = []  # per pair: its weight (S, sum of D), split by modality, then the previous layer; (S, 0) for none
        for (layer, k), weight in zip(self.pairs, layers("0.weight"), strict=True):
            chosen = zip(self.layout.widths, self.configurations[k][layer][:-1], strict=True)
            widths = [0 if i == SKIP else modality[i] for modality, i in chosen]
            columns.append(weight.split([*widths, weight.shape[1] - sum(widths)], dim=1))
        self.input_weights = nn.ParameterDict()
        for m, readers in enumerate(self.readers):
            for i, pairs in readers.items():
                self.input_weights[f"{m}_{i}"] = nn.Parameter(torch.cat([columns[p][m] for p in pairs]))  # (R S, D)
        self.biases = stack(layers("0.bias"))  # (P, S)
        size = self.settings.inner_size
        recurrent = [own[-1] for own in columns[self.alive[0] :]]
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

    def _first_terms(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Sum W_l x over modalities for each pair, (P, S, B)."""
        size = self.settings.inner_size
        by_modality = []
        for m, readers in enumerate(self.readers):
            products = [self.input_weights[f"{m}_{i}"] @ features[m][i].T for i in readers]  # each (R_(m,i) S, B)
            nothing = features[0][0].new_zeros(size, len(features[0][0]))  # for pairs that skip the modality
            stacked = torch.cat([*products, nothing]).unflatten(0, (-1, size))  # (R + 1, S, B)
            by_modality.append(stacked.index_select(0, getattr(self, f"gather_{m}")))
        if self.settings.alphas:
            share = self.alphas.sigmoid().unsqueeze(2)  # (P, 1, 1)
            by_modality = [by_modality[0] * share, by_modality[1] * (1 - share)]
        return sum(by_modality[1:], by_modality[0])

    def rectify(self, z: Tensor, activation: Tensor) -> Tensor:
        """Apply ReLU to a layer's z (K_l, S, B), or leaky ReLU or GELU where `activation` (K_l, 1, 1) says so."""
        rectified = F.relu(z)
        for number, other in self.others:
            rectified = torch.where(activation == number, other(z), rectified)
        return rectified

    def fuse(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Compute the logits (K, B, C) of the members, in the order of the given heads."""
        first = self._first_terms(features) + self.biases.unsqueeze(2)  # (P, S, B)
        activations, recurrent = self.activation.split(self.alive), self.recurrent.split(self.alive[1:])
        hidden: list[Tensor] = []  # by layer
        for number, (z, activation) in enumerate(zip(first.split(self.alive), activations, strict=True)):
            if number:
                z = torch.baddbmm(z, recurrent[number - 1], hidden[-1][: len(z)])  # (K_l, S, B)
            h = torch.where(activation == 1, z.sigmoid(), self.rectify(z, activation))
            if self.settings.batchnorm:
                h = self.norms[number](h.flatten(0, 1).T).T.view_as(h)  # over (B, K_l S)
            if self.settings.dropout > 0:
                h = F.dropout(h, self.settings.dropout, self.training)
            hidden.append(h)
        last = torch.cat(hidden).index_select(0, self.ends)  # (K, S, B)
        logits = torch.baddbmm(self.classifier_bias.unsqueeze(2), self.classifier_weight, last)  # (K, C, B)
        return logits.index_select(0, self.places).transpose(1, 2)  # (K, B, C)

    def forward(self, rows: Tensor) -> Outputs:
        """Compute logits (K, B, C) from rows (B, layout.total); with multitask the unimodal networks' logits follow."""
        features, logits = self.layout.split(rows)
        fused = self.fuse(features)
        return (fused, *reversed(logits)) if self.settings.multitask else fused

    @torch.no_grad()
    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return the central weights of one member under their published names, as its own `FusionHead` holds them."""
        k, size = int(self.places[member]), self.settings.inner_size
        state: dict[str, Tensor] = {}
        for number, (*indices, _) in enumerate(self.configurations[k]):
            pair, layer = self.starts[number] + k, f"fusion_layers.{number}"
            columns = []
            for m, i in enumerate(indices):
                if i != SKIP:
                    first = size * self.readers[m][i].index(pair)
                    columns.append(self.input_weights[f"{m}_{i}"][first : first + size])  # (S, D_(m,i))
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
