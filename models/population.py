"""Many fusion heads trained together as one module.

Notation: K candidates, at most L fusion layers each, inner size S, batch B; feature i of modality m is D_mi wide. The
first term of a fusion layer, W_l [x_1 ; x_2 ; ...], does not depend on the other layers. So all (candidate, layer)
pairs that read one feature share one matrix product; only the recurrence U_l h_(l-1) is batched over candidates, layer
by layer. Candidates are kept longest first, so that those which have a layer l are the first K_l; the P pairs are
ordered by layer, then candidate. Samples come last in every array, (K, S, B), so that what belongs to a pair is one
piece of memory.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion import SKIP, FeatureLayout, FusionHead

OTHERS = ((2, F.leaky_relu), (3, F.gelu))  # activations besides ReLU and sigmoid, by index


class Population(nn.Module):
    """The central weights of several configurations; each member trains as it would alone.

    Members share nothing but the batches: the sum of their losses has the gradient of each, element-wise optimizers
    keep them apart, batch norm and dropout act on each member's own units.
    """

    def __init__(self, heads: Sequence[FusionHead], layout: FeatureLayout) -> None:
        """Take over the weights of `heads`, whose settings must be the same."""
        super().__init__()
        self.layout = layout
        self.settings = heads[0].settings
        self.order = sorted(range(len(heads)), key=lambda k: -len(heads[k].configuration))  # sorted place -> member
        members = [heads[k] for k in self.order]
        self.configurations = [head.configuration for head in members]
        depth = len(self.configurations[0])
        self.alive = [sum(len(c) > layer for c in self.configurations) for layer in range(depth)]  # K_l
        self.starts = list(itertools.accumulate(self.alive, initial=0))[:-1]  # first pair of each layer
        self.pairs = [(layer, k) for layer, count in enumerate(self.alive) for k in range(count)]
        self._add_input_weights(members)
        self._add_recurrent_weights(members)

    def _slots(self, head: FusionHead, layer: int) -> list[Tensor]:
        """The columns of a member's layer that belong to each modality, then to the previous layer; each (S, D)."""
        row = head.configuration[layer]
        widths = [0 if i == SKIP else modality[i] for modality, i in zip(self.layout.widths, row[:-1], strict=True)]
        weight = head.fusion_layers[layer][0].weight.detach()  # (S, sum of D)
        return list(weight.split([*widths, weight.shape[1] - sum(widths)], dim=1))

    def _add_input_weights(self, members: Sequence[FusionHead]) -> None:
        """For every feature that is read, one matrix (readers x S, D_mi), and where its readers' results go.

        The products of a modality stand one after the other along the reader axis, and a block of zeros for the pairs
        that leave the modality out; `gather_m` orders them by pair, `scatter_m` back.
        """
        self.input_weights = nn.ParameterDict()
        self.readers: list[list[tuple[int, list[tuple[int, int]]]]] = []  # [modality] -> (feature, its pairs)
        for m, widths in enumerate(self.layout.widths):
            reading = [
                (i, [p for p in self.pairs if self.configurations[p[1]][p[0]][m] == i]) for i in range(len(widths))
            ]
            reading = [(i, readers) for i, readers in reading if readers]
            for i, readers in reading:
                stacked = torch.cat([self._slots(members[k], layer)[m] for layer, k in readers])  # (R S, D)
                self.input_weights[f"{m}_{i}"] = nn.Parameter(stacked.contiguous())
            self.readers.append(reading)
            placed = [p for _, readers in reading for p in readers]
            gather = [placed.index(p) if p in placed else len(placed) for p in self.pairs]
            scatter = torch.tensor([self.pairs.index(p) for p in placed], dtype=torch.int64)
            self.register_buffer(f"gather_{m}", torch.tensor(gather), persistent=False)
            self.register_buffer(f"scatter_{m}", scatter, persistent=False)

    def _add_recurrent_weights(self, members: Sequence[FusionHead]) -> None:
        def stack(tensors: list[Tensor], shape: tuple[int, ...] = ()) -> nn.Parameter:
            return nn.Parameter(torch.stack([t.detach() for t in tensors]) if tensors else torch.empty(shape))

        size = self.settings.inner_size
        layers = [members[k].fusion_layers[layer] for layer, k in self.pairs]
        self.biases = stack([layer[0].bias for layer in layers])  # (P, S)
        self.recurrent = stack(  # (pairs above the first layer, S, S)
            [self._slots(members[k], layer)[-1] for layer, k in self.pairs if layer], (0, size, size)
        )
        self.classifier_weight = stack([head.central_classifier.weight for head in members])  # (K, C, S)
        self.classifier_bias = stack([head.central_classifier.bias for head in members])  # (K, C)
        self.alphas = stack([members[k].alphas[layer].alpha_x for layer, k in self.pairs])  # (P, 1)
        if self.settings.batchnorm:
            self.norms = nn.ModuleList(
                _joined_norms([layer[2] for layer in layers[start : start + count]])
                for start, count in zip(self.starts, self.alive, strict=True)
            )
        chosen = torch.tensor([self.configurations[k][layer][-1] for layer, k in self.pairs])
        self.register_buffer("activation", chosen.view(-1, 1, 1), persistent=False)  # (P, 1, 1)
        self.others = [(number, other) for number, other in OTHERS if (chosen == number).any()]
        # The last pair of each candidate, and the sorted place of each member in the order in which they were given.
        ends = [self.pairs.index((len(c) - 1, k)) for k, c in enumerate(self.configurations)]
        self.register_buffer("ends", torch.tensor(ends), persistent=False)
        places = torch.tensor([self.order.index(k) for k in range(len(members))])
        self.register_buffer("places", places, persistent=False)

    def layer(self, values: Tensor, number: int) -> Tensor:
        """The part of a tensor over pairs (P, ...) that belongs to one fusion layer, (K_l, ...)."""
        return values[self.starts[number] : self.starts[number] + self.alive[number]]

    def recurrent_layer(self, values: Tensor, number: int) -> Tensor:
        """The same of a tensor over the pairs above the first layer, (K_l, S, S)."""
        return values[self.starts[number] - self.alive[0] :][: self.alive[number]]

    def _first_terms(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """For each pair the sum over modalities of W_l x, (P, S, B)."""
        size = self.settings.inner_size
        by_modality = []
        for m, reading in enumerate(self.readers):
            products = [self.input_weights[f"{m}_{i}"] @ features[m][i].T for i, _ in reading]  # each (R_i S, B)
            nothing = features[0][0].new_zeros(size, len(features[0][0]))  # of pairs that leave the modality out
            stacked = torch.cat([*products, nothing]).unflatten(0, (-1, size))  # (R + 1, S, B)
            by_modality.append(stacked.index_select(0, getattr(self, f"gather_{m}")))
        if self.settings.alphas:
            share = self.alphas.sigmoid().unsqueeze(2)  # (P, 1, 1)
            by_modality = [by_modality[0] * share, by_modality[1] * (1 - share)]
        return sum(by_modality[1:], by_modality[0])

    def rectify(self, z: Tensor, number: int) -> Tensor:
        """ReLU, or leaky ReLU or GELU where a candidate has that, on a layer's z (K_l, S, B)."""
        rectified = F.relu(z)
        for activation, other in self.others:
            rectified = torch.where(self.layer(self.activation, number) == activation, other(z), rectified)
        return rectified

    def activate(self, z: Tensor, number: int) -> Tensor:
        """Each candidate's own activation on a layer's z (K_l, S, B)."""
        return torch.where(self.layer(self.activation, number) == 1, torch.sigmoid(z), self.rectify(z, number))

    def fuse(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Logits (K, B, C) of the members, in the order in which the heads were given."""
        first = self._first_terms(features) + self.biases.unsqueeze(2)  # (P, S, B)
        hidden: list[Tensor] = []  # by layer
        for number, count in enumerate(self.alive):
            z = self.layer(first, number)  # (K_l, S, B)
            if number:
                z = torch.baddbmm(z, self.recurrent_layer(self.recurrent, number), hidden[-1][:count])
            h = self.activate(z, number)
            if self.settings.batchnorm:
                h = self.norms[number](h.flatten(0, 1).T).T.view_as(h)
            if self.settings.dropout > 0:
                h = F.dropout(h, self.settings.dropout, self.training)
            hidden.append(h)
        last = torch.cat(hidden).index_select(0, self.ends)  # (K, S, B)
        logits = torch.baddbmm(self.classifier_bias.unsqueeze(2), self.classifier_weight, last)  # (K, C, B)
        return logits.index_select(0, self.places).transpose(1, 2)

    def forward(self, rows: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Rows (B, layout.total) of a feature table to logits (K, B, C), with multitask followed by the other nets'."""
        features, logits = self.layout.split(rows)
        fused = self.fuse(features)
        return (fused, *reversed(logits)) if self.settings.multitask else fused

    @torch.no_grad()
    def member_state(self, member: int) -> dict[str, Tensor]:
        """The central weights of one member under their published names, as its own `FusionHead` would hold them."""
        k = int(self.places[member])
        size = self.settings.inner_size
        state: dict[str, Tensor] = {}
        for number, row in enumerate(self.configurations[k]):
            columns = []
            for m, i in enumerate(row[:-1]):
                if i == SKIP:
                    continue
                place = dict(self.readers[m])[i].index((number, k))
                columns.append(self.input_weights[f"{m}_{i}"][place * size : (place + 1) * size])
            if number:
                columns.append(self.recurrent_layer(self.recurrent, number)[k])
            state[f"alphas.{number}.alpha_x"] = self.layer(self.alphas, number)[k]
            state[f"fusion_layers.{number}.0.weight"] = torch.cat(columns, dim=1)
            state[f"fusion_layers.{number}.0.bias"] = self.layer(self.biases, number)[k]
            if self.settings.batchnorm:
                norm, own = self.norms[number], slice(k * size, (k + 1) * size)
                for name in ("weight", "bias", "running_mean", "running_var"):
                    state[f"fusion_layers.{number}.2.{name}"] = getattr(norm, name)[own]
                state[f"fusion_layers.{number}.2.num_batches_tracked"] = norm.num_batches_tracked
        state["central_classifier.weight"] = self.classifier_weight[k]
        state["central_classifier.bias"] = self.classifier_bias[k]
        return {name: value.clone() for name, value in state.items()}


class LivePopulation(nn.Module):
    """A population behind the unimodal networks that feed it: one pass through them serves all members."""

    def __init__(self, population: Population, backbones: Sequence[nn.Module], rows: Callable[..., Tensor]) -> None:
        """
        Args:
            rows: gives rows (B, layout.total) through the backbones, whose modes and states belong to this module.
        """
        super().__init__()
        self.population, self.backbones = population, nn.ModuleList(backbones)
        self._rows = (rows,)  # hidden from the state, whose names shall be the same whatever runs the backbones

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Inputs of the unimodal networks to logits (K, B, C); see `Population.forward`."""
        with torch.no_grad():
            rows = self._rows[0](*inputs)
        return self.population(rows)


def _joined_norms(norms: Sequence[nn.BatchNorm1d]) -> nn.BatchNorm1d:
    """One batch norm over the units of several."""
    joined = nn.BatchNorm1d(sum(norm.num_features for norm in norms))
    parts = ("weight", "bias", "running_mean", "running_var")
    state = {name: torch.cat([norm.state_dict()[name] for norm in norms]) for name in parts}
    joined.load_state_dict(state | {"num_batches_tracked": norms[0].num_batches_tracked})
    return joined
