"""Weight sharing between the candidates of a search (`--weightsharing`)."""

from collections.abc import Mapping

from torch import Tensor

from models.fusion import FusionHead
from utils.search.space import Configuration


class SharedWeights:
    """Start a fusion layer from the last trained one of the same input width and activation.

    Each candidate leaves the weights of its best dev epoch (published). The published code shares from one candidate to
    the next. So does a live search, which then trains them one by one; on the feature bank, the candidates of a step
    train together, so weights are shared from step to step.
    """

    def __init__(self) -> None:
        self.layers: dict[tuple[int, int], dict[str, Tensor]] = {}  # by input width and activation

    def load_into(self, head: FusionHead) -> None:
        """Load the shared weights of each fusion layer that has some."""
        for row, layer in zip(head.configuration, head.fusion_layers, strict=True):
            known = self.layers.get((layer.state_dict()["0.weight"].shape[1], row[-1]))
            if known:
                layer.load_state_dict(known)

    def store(self, configuration: Configuration, state: Mapping[str, Tensor]) -> None:
        """Keep the fusion layers of a candidate, given its central weights by name."""
        for number, row in enumerate(configuration):
            prefix = f"fusion_layers.{number}."
            layer = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            self.layers[layer["0.weight"].shape[1], row[-1]] = layer
