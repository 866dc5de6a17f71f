"""Many fusion heads trained together as one module.

Notation: K candidates, at most L fusion layers each, inner size S, batch B; feature i of modality m is D_mi wide. The
first term of a fusion layer, W_l [x_1 ; x_2 ; ...], does not depend on the other layers. So all (candidate, layer)
pairs that read one feature share one matrix product; only the recurrence h_(l-1) U_l is batched over candidates, layer
by layer. Candidates are kept longest first, so that those which have a layer l are the first K_l.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fusion import FeatureLayout, FusionHead


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
        self._add_input_weights(members)
        self._add_recurrent_weights(members)

    def _slots(self, head: FusionHead, layer: int) -> list[Tensor]:
        """The columns of a member's layer that belong to each modality, then to the previous layer; each (S, D)."""
        row = head.configuration[layer]
        widths = [modality[i] for modality, i in zip(self.layout.widths, row[:-1], strict=True)]
        weight = head.fusion_layers[layer][0].weight.detach()  # (S, sum of D)
        return list(weight.split([*widths, weight.shape[1] - sum(widths)], dim=1))

    def _add_input_weights(self, members: Sequence[FusionHead]) -> None:
        """For every feature that is read, one matrix (D_mi, readers x S), and where its readers' results go.

        The products of a modality stand one after the other along the reader axis; `gather_m` orders them by layer,
        then candidate.
        """
        pairs = [(layer, k) for layer, count in enumerate(self.alive) for k in range(count)]
        self.input_weights = nn.ParameterDict()
        self.readers: list[list[tuple[int, list[tuple[int, int]]]]] = []  # [modality] -> (feature, its pairs)
        for m, widths in enumerate(self.layout.widths):
            reading = [(i, [p for p in pairs if self.configurations[p[1]][p[0]][m] == i]) for i in range(len(widths))]
            reading = [(i, readers) for i, readers in reading if readers]
            for i, readers in reading:
                stacked = torch.cat([self._slots(members[k], layer)[m] for layer, k in readers])  # (R S, D)
                self.input_weights[f"{m}_{i}"] = nn.Parameter(stacked.T.contiguous())
            self.readers.append(reading)
            placed = [p for _, readers in reading for p in readers]
            self.register_buffer(f"gather_{m}", torch.tensor([placed.index(p) for p in pairs]), persistent=False)

    def _add_recurrent_weights(self, members: Sequence[FusionHead]) -> None:
        def stack(tensors: list[Tensor]) -> nn.Parameter:
            return nn.Parameter(torch.stack([t.detach() for t in tensors]))

        def layers(layer: int) -> list[nn.Sequential]:
            return [head.fusion_layers[layer] for head in members[: self.alive[layer]]]

        depth = range(len(self.alive))
        self.biases = nn.ParameterList(stack([x[0].bias for x in layers(layer)]) for layer in depth)  # (K_l, S)
        self.recurrent = nn.ParameterList(  # (K_l, S, S), input index first
            stack([self._slots(head, layer)[-1].T for head in members[: self.alive[layer]]]) for layer in depth[1:]
        )
        self.classifier_weight = stack([head.central_classifier.weight.T for head in members])  # (K, S, C)
        self.classifier_bias = stack([head.central_classifier.bias for head in members])  # (K, C)
        self.alphas = nn.ParameterList(
            stack([head.alphas[layer].alpha_x for head in members[: self.alive[layer]]]) for layer in depth
        )  # (K_l, 1)
        if self.settings.batchnorm:
            self.norms = nn.ModuleList()
            for layer in depth:
                norm = nn.BatchNorm1d(self.alive[layer] * self.settings.inner_size)
                olds = [x[2] for x in layers(layer)]
                norm.load_state_dict(
                    {
                        name: torch.cat([old.state_dict()[name].reshape(-1) for old in olds])
                        for name in ("weight", "bias")
                    }
                    | {
                        name: torch.cat([getattr(old, name) for old in olds])
                        for name in ("running_mean", "running_var")
                    }
                    | {"num_batches_tracked": olds[0].num_batches_tracked}
                )
                self.norms.append(norm)
        for layer, count in enumerate(self.alive):
            chosen = torch.tensor([self.configurations[k][layer][-1] for k in range(count)])
            self.register_buffer(f"activation_{layer}", chosen.view(-1, 1, 1), persistent=False)
        self.leaky = any(row[-1] == 2 for configuration in self.configurations for row in configuration)
        # The sorted place of each member, in the order in which they were given.
        places = torch.tensor([self.order.index(k) for k in range(len(members))])
        self.register_buffer("places", places, persistent=False)

    def _first_terms(self, features: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """For each layer the sum over modalities of W_l x, (K_l, B, S)."""
        size = self.settings.inner_size
        by_modality = []
        for m, reading in enumerate(self.readers):
            products = [features[m][i] @ self.input_weights[f"{m}_{i}"] for i, _ in reading]  # each (B, R_i S)
            stacked = torch.cat(products, dim=1).unflatten(1, (-1, size))  # (B, pairs, S)
            by_modality.append(stacked.transpose(0, 1).index_select(0, getattr(self, f"gather_{m}")))  # (pairs, B, S)
        if self.settings.alphas:
            share = torch.cat(list(self.alphas)).sigmoid().unsqueeze(2)  # (pairs, 1, 1)
            by_modality = [by_modality[0] * share, by_modality[1] * (1 - share)]
        return list(sum(by_modality[1:], by_modality[0]).split(self.alive))

    def _activate(self, z: Tensor, layer: int) -> Tensor:
        """Each candidate's own activation on z (K_l, B, S)."""
        chosen = getattr(self, f"activation_{layer}")
        rectified = torch.where(chosen == 2, F.leaky_relu(z), F.relu(z)) if self.leaky else F.relu(z)
        return torch.where(chosen == 1, torch.sigmoid(z), rectified)

    def fuse(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Logits (K, B, C) of the members, in the order in which the heads were given."""
        hidden: Tensor | None = None
        last: list[Tensor] = []  # final states of the candidates that end at a layer, longest last
        for layer, z in enumerate(self._first_terms(features)):
            z = z + self.biases[layer].unsqueeze(1)  # (K_l, B, S)
            if hidden is not None:
                last.insert(0, hidden[len(z) :])
                z = torch.baddbmm(z, hidden[: len(z)], self.recurrent[layer - 1])
            hidden = self._activate(z, layer)
            if self.settings.batchnorm:
                hidden = self._normalise(hidden, layer)
            if self.settings.dropout > 0:
                hidden = F.dropout(hidden, self.settings.dropout, self.training)
        hidden = torch.cat([hidden, *last])  # (K, B, S)
        logits = torch.baddbmm(self.classifier_bias.unsqueeze(1), hidden, self.classifier_weight)  # (K, B, C)
        return logits.index_select(0, self.places)

    def _normalise(self, hidden: Tensor, layer: int) -> Tensor:
        members, batch, size = hidden.shape
        flat = hidden.transpose(0, 1).reshape(batch, members * size)  # (B, K_l S)
        return self.norms[layer](flat).view(batch, members, size).transpose(0, 1)

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
        for layer, row in enumerate(self.configurations[k]):
            columns = []
            for m, i in enumerate(row[:-1]):
                place = dict(self.readers[m])[i].index((layer, k))
                columns.append(self.input_weights[f"{m}_{i}"][:, place * size : (place + 1) * size].T)
            if layer:
                columns.append(self.recurrent[layer - 1][k].T)
            state[f"alphas.{layer}.alpha_x"] = self.alphas[layer][k]
            state[f"fusion_layers.{layer}.0.weight"] = torch.cat(columns, dim=1)
            state[f"fusion_layers.{layer}.0.bias"] = self.biases[layer][k]
            if self.settings.batchnorm:
                norm, own = self.norms[layer], slice(k * size, (k + 1) * size)
                for name in ("weight", "bias", "running_mean", "running_var"):
                    state[f"fusion_layers.{layer}.2.{name}"] = getattr(norm, name)[own]
                state[f"fusion_layers.{layer}.2.num_batches_tracked"] = norm.num_batches_tracked
        state["central_classifier.weight"] = self.classifier_weight[k].T
        state["central_classifier.bias"] = self.classifier_bias[k]
        return {name: value.clone() for name, value in state.items()}
