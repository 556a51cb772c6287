"""The large backbones in PyTorch's own modules, as its users write them: what Keras on PyTorch is measured beside."""

import torch
from torch import nn

SCALE = 60.0
CHANNELS = (64, 128, 256, 512)  # of the four stages


def _conv(inputs, outputs, stride=1, size=3):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class _IResNetUnit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        first = nn.BatchNorm2d(inputs), _conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.residual = nn.Sequential(*first, _conv(outputs, outputs, stride), nn.BatchNorm2d(outputs))
        downsample = _conv(inputs, outputs, stride, 1), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(*downsample) if stride != 1 else nn.Identity()

    def forward(self, x):
        return self.residual(x) + self.shortcut(x)


class _SFNetUnit(nn.Module):
    def __init__(self, channels):
        super().__init__()
        first = nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(inplace=True)
        self.residual = nn.Sequential(*first, nn.Conv2d(channels, channels, 3, 1, 1))

    def forward(self, x):
        return torch.relu(x + self.residual(x))


def _iresnet(units, embedding_dim):
    modules, inputs = [_conv(3, 64), nn.BatchNorm2d(64), nn.PReLU(64)], 64
    for count, outputs in zip(units, CHANNELS):
        for index in range(count):
            modules.append(_IResNetUnit(inputs, outputs, 2 if index == 0 else 1))
            inputs = outputs
    embedding = nn.Flatten(), nn.Linear(49 * inputs, embedding_dim), nn.BatchNorm1d(embedding_dim)
    return nn.Sequential(*modules, nn.BatchNorm2d(inputs), *embedding)


def _sfnet(units, embedding_dim):
    modules, inputs = [], 3
    for count, outputs in zip(units, CHANNELS):
        modules += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU(inplace=True)]
        modules += [_SFNetUnit(outputs) for _ in range(count)]
        inputs = outputs
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(49 * inputs, embedding_dim))


NETWORKS = {
    "iresnet50": (_iresnet, (3, 4, 14, 3)),
    "iresnet100": (_iresnet, (3, 13, 30, 3)),
    "sfnet64": (_sfnet, (3, 8, 16, 3)),
}


def training_step(name, batch, embedding_dim, classes):
    """A whole step in bfloat16, channels last.

    Args:
        name: Of `NETWORKS`.
        batch: Images of a step; they are uploaded as bytes each time, as a data set's are.
        embedding_dim: Length of an embedding.
        classes: Of a plain softmax over cosines.

    Returns:
        The step, a function without arguments that returns the loss.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    make, units = NETWORKS[name]
    network = make(units, embedding_dim).to(device, memory_format=torch.channels_last)
    weights = nn.Parameter(torch.randn(classes, embedding_dim, device=device))
    optimizer = torch.optim.SGD([*network.parameters(), weights], 0.01, momentum=0.9)
    images = torch.randint(0, 256, (batch, 112, 112, 3), dtype=torch.uint8)
    labels = torch.randint(0, classes, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        x = (images.to(device).permute(0, 3, 1, 2).float() - 127.5) / 127.5
        with torch.autocast(device, torch.bfloat16):
            embeddings = network(x)
        cosines = nn.functional.normalize(embeddings.float()) @ nn.functional.normalize(weights).T
        loss = nn.functional.cross_entropy(SCALE * cosines, labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
