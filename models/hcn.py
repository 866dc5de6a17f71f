"""The skeleton network of NTU RGB+D: hierarchical co-occurrence of joints (HCN, IJCAI 2018).

Joints become channels after the second convolution, so that the third sees all joints at once. Two streams, position
and motion, process each person and merge in the fifth; the maximum over the two persons is classified. Parameter names
are the published ones.

Notation: batch B, frames T, classes C.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.unimodal import UnimodalNetwork

JOINTS = 25


class SkeletonNet(UnimodalNetwork):
    """Skeletons (B, 3, T, 25, 2): three coordinates, 25 joints, two persons.

    Features are 128, 256, 256 (T/16)^2 (1024 for 32 frames) and 512 wide.
    """

    depth = 4

    def __init__(self, num_outputs: int = 60, frames: int = 32, dropout: float = 0.5) -> None:
        """
        Args:
            frames: T, at least 8 (ValueError), because pooling would reduce fewer to none.
            dropout: rate of every dropout layer.
        """
        super().__init__()
        if frames < 8:
            raise ValueError(f"the skeleton network needs at least 8 frames, but got {frames}")
        pools_fifth = frames >= 16  # published: no pooling there with 8 frames
        for stream in ("", "m"):
            self.add_module(f"conv1{stream}", nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU()))
            self.add_module(f"conv2{stream}", nn.Conv2d(64, frames, (3, 1), padding=(1, 0)))
            self.add_module(f"conv3{stream}", nn.Sequential(nn.Conv2d(JOINTS, 32, 3, padding=1), nn.MaxPool2d(2)))
            four = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.Dropout2d(dropout), nn.MaxPool2d(2))
            self.add_module(f"conv4{stream}", four)
        self.conv5 = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Dropout2d(dropout))
        if pools_fifth:
            self.conv5.append(nn.MaxPool2d(2))
        self.conv6 = nn.Sequential(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Dropout2d(dropout), nn.MaxPool2d(2))
        flat = 256 * (frames // (16 if pools_fifth else 8)) ** 2
        self.fc7 = nn.Sequential(nn.Linear(flat, 512), nn.ReLU(), nn.Dropout(dropout))
        self.fc8 = nn.Linear(512, num_outputs)
        self.feature_widths = (128, 256, flat, 512)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def _stream(self, x: Tensor, stream: str) -> list[Tensor]:
        """Compute the outputs of the first four convolutions of one stream for one person (B, 3, T, 25)."""
        one = self.get_submodule(f"conv1{stream}")(x)  # (B, 64, T, 25)
        two = self.get_submodule(f"conv2{stream}")(one).transpose(1, 3)  # (B, 25, T, T)
        three = self.get_submodule(f"conv3{stream}")(two)  # (B, 32, T/2, T/2)
        four = self.get_submodule(f"conv4{stream}")(three)  # (B, 64, T/4, T/4)
        return [one, two, three, four]

    def hidden(self, skeletons: Tensor) -> list[Tensor]:
        """Compute the eight published hidden outputs: six maps, the sixth map flattened, and the output of fc7.

        The first three maps are those of position, the others join both streams. Each is the maximum over persons.
        """
        motion = skeletons[:, :, 1:] - skeletons[:, :, :-1]  # (B, 3, T-1, 25, 2)
        size = skeletons.shape[2:4]
        persons = []
        for position, moved in zip(skeletons.unbind(-1), motion.unbind(-1), strict=True):  # (B, 3, T, 25)
            moved = F.interpolate(moved, size=size, mode="bilinear", align_corners=False)  # (B, 3, T, 25)
            *early, four = self._stream(position, "")
            both = torch.cat([four, self._stream(moved, "m")[-1]], dim=1)  # (B, 128, T/4, T/4)
            five = self.conv5(both)  # (B, 128, T/8, T/8)
            persons.append([*early, both, five, self.conv6(five)])  # the last (B, 256, T/16, T/16)
        maps = [torch.maximum(*pair) for pair in zip(*persons, strict=True)]
        flat = maps[-1].flatten(1)  # (B, 256 (T/16)^2)
        return [*maps, flat, self.fc7(flat)]  # the last (B, 512)

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        *_, five, six, flat, seven = self.hidden(x)
        return [five.mean(dim=(2, 3)), six.mean(dim=(2, 3)), flat, seven], self.fc8(seven)  # (B, D_i), (B, C)
