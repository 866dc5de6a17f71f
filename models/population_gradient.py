"""Loss gradients of a population, written by hand: a fraction of the operations that autograd runs.

At batches of 32 the time of a training step goes to starting operations, not to arithmetic. Here all weights are views
of one vector, and so are their gradients; everything between is computed into buffers that are made once, over all
pairs together where the recurrence allows it. The notation is that of `Population`; d_x is the gradient with respect
to x.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.population import Population


class PopulationGradient:
    """Computes the gradient of the sum of the members' mean cross entropies into `gradient`, laid out as `weights`."""

    def __init__(self, population: Population) -> None:
        """Turn the population's parameters into views of one vector, where they stand on the device they are on.

        Raises:
            ValueError: its settings are not among those that `supports` names.
        """
        if not self.supports(population):
            raise ValueError("the gradient by hand knows neither batch norm nor alphas")
        self.population = population
        named = [(name, p) for name, p in population.named_parameters() if name != "alphas"]
        self.weights = nn.Parameter(torch.cat([p.detach().reshape(-1) for _, p in named]))
        self.gradient = torch.zeros_like(self.weights.data)
        parts = zip(named, self.weights.data.split([p.numel() for _, p in named]), strict=True)
        for (_, parameter), values in parts:
            parameter.data = values.view_as(parameter)
        pieces = self.gradient.split([p.numel() for _, p in named])
        self.by_name = {name: piece.view_as(p) for (name, p), piece in zip(named, pieces, strict=True)}
        self._buffers = functools.cache(self._make_buffers)
        self._is_sigmoid = population.activation == 1
        self._leak = 0.01 * (population.activation == 2)

    @staticmethod
    def supports(population: Population) -> bool:
        """Whether the population has neither batch norm nor alphas; multitask trains no central weight otherwise."""
        return not (population.settings.batchnorm or population.settings.alphas)

    def _make_buffers(self, batch: int) -> dict[str, Tensor | list[Tensor]]:
        """Arrays of one batch size, each over pairs (P, S, B), and the products of each modality's features."""
        population, size = self.population, self.population.settings.inner_size
        shape = (len(population.pairs), size, batch)
        names = ("first", "activated", "hidden", "slope", "d_hidden", "d_first")
        made = {name: self.gradient.new_empty(shape) for name in names}
        for name in ("products", "d_products"):
            made[name] = [self.gradient.new_empty(shape) for _ in population.readers]
        for name in ("product_parts", "d_product_parts"):
            made[name] = [
                [part.flatten(0, 1) for part in whole.split([len(readers) for _, readers in reading])]  # (R S, B)
                for whole, reading in zip(made[name.removesuffix("_parts") + "s"], population.readers, strict=True)
            ]
        return made

    @torch.no_grad()
    def __call__(self, features: Sequence[Sequence[Tensor]], targets: Tensor, mask: Tensor | None) -> None:
        """
        Args:
            features: features[modality][index], each (B, width).
            targets: one-hot labels (C, B).
            mask: dropout, (P, S, B): 0, or 1 / (1 - p). None: no dropout.
        """
        buffers = self._buffers(targets.shape[1])
        last = self._forward(features, mask, buffers)  # (K, S, B)
        self._backward(features, targets, mask, last, buffers)

    def _forward(self, features: Sequence[Sequence[Tensor]], mask: Tensor | None, buffers: dict) -> Tensor:
        """The final hidden states of the candidates, (K, S, B); fills "activated" and "hidden"."""
        population = self.population
        for m, reading in enumerate(population.readers):
            for (i, _), part in zip(reading, buffers["product_parts"][m], strict=True):
                torch.mm(population.input_weights[f"{m}_{i}"], features[m][i].T, out=part)
        first = buffers["first"]
        torch.index_select(buffers["products"][0], 0, population.gather_0, out=first)
        for m in range(1, len(population.readers)):
            first += buffers["products"][m].index_select(0, getattr(population, f"gather_{m}"))
        first += population.biases.unsqueeze(2)
        hidden = buffers["hidden"] if mask is not None else buffers["activated"]
        for number, count in enumerate(population.alive):
            z = population.layer(first, number)  # (K_l, S, B)
            if number:
                before = population.layer(hidden, number - 1)[:count]
                z.baddbmm_(population.recurrent_layer(population.recurrent, number), before)
            activated = population.layer(buffers["activated"], number)
            activated.copy_(population.activate(z, number))
            if mask is not None:
                torch.mul(activated, population.layer(mask, number), out=population.layer(hidden, number))
        return hidden.index_select(0, population.ends)

    def _backward(
        self,
        features: Sequence[Sequence[Tensor]],
        targets: Tensor,
        mask: Tensor | None,
        last: Tensor,
        buffers: dict,
    ) -> None:
        population, of = self.population, self.by_name
        logits = torch.baddbmm(population.classifier_bias.unsqueeze(2), population.classifier_weight, last)
        d_logits = logits.softmax(1).sub_(targets).mul_(1 / targets.shape[1])  # (K, C, B)
        torch.bmm(d_logits, last.mT, out=of["classifier_weight"])
        torch.sum(d_logits, 2, out=of["classifier_bias"])
        d_last = torch.bmm(population.classifier_weight.mT, d_logits)  # (K, S, B)

        slope = self._slopes(buffers)
        if mask is not None:
            slope *= mask
        hidden = buffers["hidden"] if mask is not None else buffers["activated"]
        d_first, d_hidden = buffers["d_first"], buffers["d_hidden"]
        alive = [*population.alive, 0]
        for number in reversed(range(len(population.alive))):
            d_h, d_z = population.layer(d_hidden, number), population.layer(d_first, number)  # (K_l, S, B)
            going_on, count = alive[number + 1], alive[number]
            d_h[going_on:] = d_last[going_on:count]  # candidates that end here
            torch.mul(d_h, population.layer(slope, number), out=d_z)
            if number:
                before = population.layer(hidden, number - 1)[:count]
                torch.bmm(d_z, before.mT, out=population.recurrent_layer(of["recurrent"], number))
                weight = population.recurrent_layer(population.recurrent, number)
                torch.bmm(weight.mT, d_z, out=population.layer(d_hidden, number - 1)[:count])
        torch.sum(d_first, 2, out=of["biases"])
        for m, reading in enumerate(population.readers):
            torch.index_select(d_first, 0, getattr(population, f"scatter_{m}"), out=buffers["d_products"][m])
            for (i, _), part in zip(reading, buffers["d_product_parts"][m], strict=True):
                torch.mm(part, features[m][i], out=of[f"input_weights.{m}_{i}"])

    def _slopes(self, buffers: dict) -> Tensor:
        """The derivative of each pair's activation, from its result: (P, S, B)."""
        a = buffers["activated"]
        rectified = torch.where(a > 0, 1.0, self._leak)
        return torch.where(self._is_sigmoid, torch.addcmul(a, a, a, value=-1), rectified, out=buffers["slope"])
