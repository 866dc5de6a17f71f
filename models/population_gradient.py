"""Loss gradients of a population, derived by hand: a fraction of the operations that autograd runs.

With batches of 32, a training step spends its time on launching operations, not on arithmetic. Here all weights are
views of one vector, and so are their gradients. Intermediate results go into preallocated buffers, for all pairs at
once where the recurrence allows it.

Notation: that of `models.population`; d_x is the gradient with respect to x.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.population import Population


class PopulationGradient:
    """Compute the gradient of the sum of the members' mean losses into `gradient`, laid out as `weights`.

    Creating one turns the population's parameters into views of one vector on their device.
    """

    def __init__(self, population: Population) -> None:
        assert self.supports(population)
        self.population = population
        named = [(name, p) for name, p in population.named_parameters() if name != "alphas"]
        self.weights = nn.Parameter(torch.cat([p.detach().reshape(-1) for _, p in named]))
        self.gradient = torch.zeros_like(self.weights.data)
        sizes = [p.numel() for _, p in named]
        self.by_name: dict[str, Tensor] = {}  # gradient of each parameter
        parts = zip(named, self.weights.data.split(sizes), self.gradient.split(sizes), strict=True)
        for (name, parameter), values, gradient in parts:
            parameter.data = values.view_as(parameter)
            self.by_name[name] = gradient.view_as(parameter)
        self._buffers: dict[int, _Buffers] = {}  # by batch size
        self._recurrent = population.recurrent.split(population.alive[1:])
        self._d_recurrent = self.by_name["recurrent"].split(population.alive[1:])
        self._activations = population.activation.split(population.alive)
        # 1 where a pair has the activation, else 0: blending by multiplication is faster than torch.where.
        self._sigmoid = (population.activation == 1).to(self.weights.dtype)  # (P, 1, 1)
        self._sigmoid_layers = self._sigmoid.split(population.alive)
        self._leak = 0.01 * (population.activation == 2)
        self._gelu = population.activation == 3 if (population.activation == 3).any() else None

    @staticmethod
    def supports(population: Population) -> bool:
        """Return False with batch norm or alphas; multitask does not change the gradient of central weights."""
        return not (population.settings.batchnorm or population.settings.alphas)

    @torch.no_grad()
    def __call__(self, features: Sequence[Sequence[Tensor]], targets: Tensor, mask: Tensor | None) -> None:
        """
        Args:
            features: features[m][i], each (B, D_(m,i)).
            targets: one-hot or multi-label targets (C, B).
            mask: dropout mask (P, S, B) of 0 and 1 / (1 - p); None without dropout.
        """
        batch = targets.shape[1]
        if batch not in self._buffers:
            self._buffers[batch] = _Buffers(self.population, batch, like=self.gradient)
        buffers = self._buffers[batch]
        last = self._forward(features, mask, buffers)  # (K, S, B)
        d_last = self._classifier_gradient(last, targets)  # (K, S, B)
        self._backward(features, mask, d_last, buffers)

    def _forward(self, features: Sequence[Sequence[Tensor]], mask: Tensor | None, buffers: "_Buffers") -> Tensor:
        """Return the last hidden state of each candidate, (K, S, B), and fill the buffers that `_backward` reads."""
        population = self.population
        for m, (products, parts) in enumerate(zip(buffers.products, buffers.product_parts, strict=True)):
            for i, part in parts.items():
                torch.mm(population.input_weights[f"{m}_{i}"], features[m][i].T, out=part)
            gather = getattr(population, f"gather_{m}")
            if m == 0:
                torch.index_select(products, 0, gather, out=buffers.first)
            else:
                buffers.first += products.index_select(0, gather)
        buffers.first += population.biases.unsqueeze(2)
        masks = None if mask is None else mask.split(population.alive)
        before: Tensor | None = None  # h of the layer below, (K_(l-1), S, B)
        for number, (z, activated) in enumerate(zip(buffers.first_layers, buffers.activated_layers, strict=True)):
            if before is not None:
                z.baddbmm_(self._recurrent[number - 1], before[: len(z)])  # (K_l, S, B)
            rectified = population.rectify(z, self._activations[number])
            torch.lerp(rectified, z.sigmoid(), self._sigmoid_layers[number], out=activated)
            before = activated
            if masks is not None:
                before = torch.mul(activated, masks[number], out=buffers.hidden_layers[number])
        return (buffers.activated if mask is None else buffers.hidden).index_select(0, population.ends)

    def _classifier_gradient(self, last: Tensor, targets: Tensor) -> Tensor:
        """Compute the gradients of the classifiers; return that of the last hidden states, (K, S, B)."""
        population = self.population
        logits = torch.baddbmm(population.classifier_bias.unsqueeze(2), population.classifier_weight, last)
        if population.settings.multi_label:  # binary cross entropy, averaged over samples and classes
            d_logits = logits.sigmoid().sub_(targets).mul_(1 / targets.numel())  # (K, C, B)
        else:
            d_logits = logits.softmax(1).sub_(targets).mul_(1 / targets.shape[1])
        torch.bmm(d_logits, last.mT, out=self.by_name["classifier_weight"])
        torch.sum(d_logits, 2, out=self.by_name["classifier_bias"])
        return torch.bmm(population.classifier_weight.mT, d_logits)

    def _backward(
        self, features: Sequence[Sequence[Tensor]], mask: Tensor | None, d_last: Tensor, buffers: "_Buffers"
    ) -> None:
        """Compute the gradients of the fusion layers, last layer first."""
        population = self.population
        slopes = self._slopes(buffers, mask).split(population.alive)
        hidden = buffers.activated_layers if mask is None else buffers.hidden_layers
        deeper = 0  # number of candidates that have the layer above
        for number in reversed(range(len(population.alive))):
            d_h, d_z = buffers.d_hidden_layers[number], buffers.d_first_layers[number]  # (K_l, S, B)
            if deeper < len(d_h):
                d_h[deeper:] = d_last[deeper : len(d_h)]
            torch.mul(d_h, slopes[number], out=d_z)
            deeper = len(d_h)
            if number:
                torch.bmm(d_z, hidden[number - 1][:deeper].mT, out=self._d_recurrent[number - 1])
                torch.bmm(self._recurrent[number - 1].mT, d_z, out=buffers.d_hidden_layers[number - 1][:deeper])
        torch.sum(buffers.d_first, 2, out=self.by_name["biases"])
        for m, parts in enumerate(buffers.product_parts):
            torch.index_select(buffers.d_first, 0, getattr(population, f"scatter_{m}"), out=buffers.products[m][:-1])
            for i, part in parts.items():
                torch.mm(part, features[m][i], out=self.by_name[f"input_weights.{m}_{i}"])

    def _slopes(self, buffers: "_Buffers", mask: Tensor | None) -> Tensor:
        """Compute the derivative of each pair's activation from its output, times the mask: (P, S, B)."""
        a = buffers.activated
        rectified = torch.where(a > 0, 1.0, self._leak) if self.population.others else a.sign()
        if self._gelu is not None:  # the only activation whose output does not determine its slope
            z = buffers.first
            rectified = torch.where(self._gelu, torch.ops.aten.gelu_backward(torch.ones_like(z), z), rectified)
        slopes = torch.lerp(rectified, torch.addcmul(a, a, a, value=-1), self._sigmoid, out=buffers.first)
        return slopes if mask is None else slopes.mul_(mask)


class _Buffers:
    """Arrays (P, S, B) for one batch size, and views of their layers; unneeded ones are overwritten."""

    def __init__(self, population: Population, batch: int, like: Tensor) -> None:
        size, alive = population.settings.inner_size, population.alive
        shape = (5, len(population.pairs), size, batch)
        self.first, self.activated, self.hidden, self.d_hidden, self.d_first = like.new_empty(shape).unbind()
        self.first_layers, self.d_first_layers = self.first.split(alive), self.d_first.split(alive)  # (K_l, S, B) each
        self.activated_layers, self.hidden_layers = self.activated.split(alive), self.hidden.split(alive)
        self.d_hidden_layers = self.d_hidden.split(alive)
        self.products: list[Tensor] = []  # by modality (R + 1, S, B); the last block stays zero, see `_add_readers`
        self.product_parts: list[dict[int, Tensor]] = []  # [modality][feature]: its part of them, (R_(m,i) S, B)
        for readers in population.readers:
            counts = [len(pairs) for pairs in readers.values()]
            products = like.new_zeros((sum(counts) + 1, size, batch))
            parts = products[:-1].split(counts)
            self.products.append(products)
            self.product_parts.append({i: part.flatten(0, 1) for i, part in zip(readers, parts, strict=True)})
