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
    """Computes the gradient of the sum of the members' mean losses into `gradient`, laid out as `weights`."""

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
        numbers = range(1, len(population.alive))
        self._recurrent = [None, *(population.recurrent_layer(population.recurrent, n) for n in numbers)]
        self._d_recurrent = [None, *(population.recurrent_layer(self.by_name["recurrent"], n) for n in numbers)]
        # 1 where a pair has the activation, else 0: blending by multiplication is faster than choosing.
        self._sigmoid = (population.activation == 1).to(self.weights.dtype)  # (P, 1, 1)
        self._sigmoid_layers = self._sigmoid.split(population.alive)
        self._leak = 0.01 * (population.activation == 2)
        self._gelu = population.activation == 3 if (population.activation == 3).any() else None

    @staticmethod
    def supports(population: Population) -> bool:
        """Whether the population has neither batch norm nor alphas; multitask trains no central weight otherwise."""
        return not (population.settings.batchnorm or population.settings.alphas)

    def _make_buffers(self, batch: int) -> "_Buffers":
        population = self.population
        shape = (len(population.pairs), population.settings.inner_size, batch)
        return _Buffers(
            shape, population.alive, [[len(r) for _, r in reading] for reading in population.readers], self.gradient
        )

    @torch.no_grad()
    def __call__(self, features: Sequence[Sequence[Tensor]], targets: Tensor, mask: Tensor | None) -> None:
        """
        Args:
            features: features[modality][index], each (B, width).
            targets: one-hot labels (C, B), or with multi-label those of all classes.
            mask: dropout, (P, S, B): 0, or 1 / (1 - p). None: no dropout.
        """
        buffers = self._buffers(targets.shape[1])
        last = self._forward(features, mask, buffers)  # (K, S, B)
        self._backward(features, targets, mask, last, buffers)

    def _forward(self, features: Sequence[Sequence[Tensor]], mask: Tensor | None, buffers: "_Buffers") -> Tensor:
        """The final hidden states of the candidates, (K, S, B); fills the buffers that the way back reads."""
        population = self.population
        for m, reading in enumerate(population.readers):
            for (i, _), part in zip(reading, buffers.product_parts[m], strict=True):
                torch.mm(population.input_weights[f"{m}_{i}"], features[m][i].T, out=part)
        torch.index_select(buffers.products[0], 0, population.gather_0, out=buffers.first)
        for m in range(1, len(population.readers)):
            buffers.first += buffers.products[m].index_select(0, getattr(population, f"gather_{m}"))
        buffers.first += population.biases.unsqueeze(2)
        masks = None if mask is None else mask.split(population.alive)
        before: Tensor | None = None  # hidden states of the layer below
        for number, (z, activated) in enumerate(zip(buffers.first_layers, buffers.activated_layers, strict=True)):
            if before is not None:
                z.baddbmm_(self._recurrent[number], before[: len(z)])  # (K_l, S, B)
            rectified = population.rectify(z, number)
            torch.lerp(rectified, z.sigmoid(), self._sigmoid_layers[number], out=activated)
            before = activated
            if masks is not None:
                before = torch.mul(activated, masks[number], out=buffers.hidden_layers[number])
        return (buffers.activated if mask is None else buffers.hidden).index_select(0, population.ends)

    def _backward(
        self,
        features: Sequence[Sequence[Tensor]],
        targets: Tensor,
        mask: Tensor | None,
        last: Tensor,
        buffers: "_Buffers",
    ) -> None:
        population, gradients = self.population, self.by_name
        logits = torch.baddbmm(population.classifier_bias.unsqueeze(2), population.classifier_weight, last)
        if population.settings.multi_label:  # binary cross entropy, the mean over samples and classes
            d_logits = logits.sigmoid().sub_(targets).mul_(1 / targets.numel())  # (K, C, B)
        else:
            d_logits = logits.softmax(1).sub_(targets).mul_(1 / targets.shape[1])
        torch.bmm(d_logits, last.mT, out=gradients["classifier_weight"])
        torch.sum(d_logits, 2, out=gradients["classifier_bias"])
        d_last = torch.bmm(population.classifier_weight.mT, d_logits)  # (K, S, B)

        slopes = self._slopes(buffers, mask).split(population.alive)
        hidden = buffers.activated_layers if mask is None else buffers.hidden_layers
        going_on = 0  # candidates that have the layer above
        for number in reversed(range(len(population.alive))):
            d_h, d_z = buffers.d_hidden_layers[number], buffers.d_first_layers[number]  # (K_l, S, B)
            if going_on < len(d_h):
                d_h[going_on:] = d_last[going_on : len(d_h)]
            torch.mul(d_h, slopes[number], out=d_z)
            going_on = len(d_h)
            if number:
                torch.bmm(d_z, hidden[number - 1][:going_on].mT, out=self._d_recurrent[number])
                torch.bmm(self._recurrent[number].mT, d_z, out=buffers.d_hidden_layers[number - 1][:going_on])
        torch.sum(buffers.d_first, 2, out=gradients["biases"])
        for m, reading in enumerate(population.readers):
            torch.index_select(buffers.d_first, 0, getattr(population, f"scatter_{m}"), out=buffers.products[m][:-1])
            for (i, _), part in zip(reading, buffers.product_parts[m], strict=True):
                torch.mm(part, features[m][i], out=gradients[f"input_weights.{m}_{i}"])

    def _slopes(self, buffers: "_Buffers", mask: Tensor | None) -> Tensor:
        """The derivative of each pair's activation, from its result, times the mask: (P, S, B)."""
        a = buffers.activated
        rectified = torch.where(a > 0, 1.0, self._leak) if self.population.others else a.sign()
        if self._gelu is not None:  # the only one whose result does not tell its slope
            z = buffers.first
            rectified = torch.where(self._gelu, torch.ops.aten.gelu_backward(torch.ones_like(z), z), rectified)
        slopes = torch.lerp(rectified, torch.addcmul(a, a, a, value=-1), self._sigmoid, out=buffers.first)
        return slopes if mask is None else slopes.mul_(mask)


class _Buffers:
    """Arrays (P, S, B) of one batch size, and views of their layers; what is not read again is written over."""

    def __init__(self, shape: tuple[int, ...], alive: list[int], readers: list[list[int]], like: Tensor) -> None:
        """
        Args:
            readers: by modality, how many pairs read each of the features that are read.
        """
        self.first, self.activated, self.hidden, self.d_hidden, self.d_first = like.new_empty((5, *shape)).unbind()
        # By modality, in readers' order; the last block stays zero, for pairs that leave the modality out.
        self.products = [like.new_zeros((sum(counts) + 1, *shape[1:])) for counts in readers]
        self.product_parts = [
            [part.flatten(0, 1) for part in whole[:-1].split(counts)]  # by feature (R S, B)
            for whole, counts in zip(self.products, readers, strict=True)
        ]
        names = ("first", "activated", "hidden", "d_hidden", "d_first")
        layers = (getattr(self, name).split(alive) for name in names)
        (
            self.first_layers,
            self.activated_layers,
            self.hidden_layers,
            self.d_hidden_layers,
            self.d_first_layers,
        ) = layers
