"""Muon for convolutions: without normalization layers it needs several times fewer steps than Adam."""

import itertools

import torch

FIRST_CHANNELS = 3  # of the images: the kernel on them is no hidden layer, and Muon is for hidden layers
MOMENTUM = 0.95
RMS = 0.2  # of an update's elements, in units of the learning rate: about AdamW's
QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values towards 1 in few steps
ITERATIONS = 5


def is_hidden_convolution(variable):
    """Whether a Keras variable is a kernel for `ConvMuon`: no first, no depthwise convolution."""
    return len(variable.shape) == 4 and variable.shape[2] > FIRST_CHANNELS and "global_conv" not in variable.path


def orthogonalized(matrices):
    """About U V^T of each matrix U S V^T, by Newton-Schulz iterations in the matrices' dtype.

    Args:
        matrices: `(n, rows, columns)`.

    Returns:
        The same shape; singular values between about 0.7 and 1.2.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT).mT
    a, b, c = QUINTIC
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


class ConvMuon(torch.optim.Optimizer):
    """Muon with each convolution kernel taken as one matrix `(height * width * inputs, outputs)`.

    Kernels of one shape are iterated as one stack: an accelerator waits for each small product otherwise.

    Args:
        kernels: Tensors `(height, width, inputs, outputs)`.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        matrix_dtype: What the iteration computes in; it only wants directions. Defaults to `torch.bfloat16`.

    References:
        - Muon (https://kellerjordan.github.io/posts/muon/)
        - Moonlight (arXiv 2502.16982) for the scale of the update
    """

    def __init__(self, kernels, lr, weight_decay, matrix_dtype=torch.bfloat16):
        by_shape = itertools.groupby(sorted(kernels, key=lambda kernel: kernel.shape), key=lambda kernel: kernel.shape)
        super().__init__([{"params": list(alike)} for _, alike in by_shape], {"lr": lr, "weight_decay": weight_decay})
        self.matrix_dtype = matrix_dtype

    @torch.no_grad()
    def step(self):
        """One step by the kernels' gradients."""
        for group in self.param_groups:
            kernels, rate = group["params"], group["lr"]
            gradients = [kernel.grad for kernel in kernels]
            momenta = [self._momentum(kernel) for kernel in kernels]
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_add_(momenta, gradients)
            ahead = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)  # Nesterov's
            matrices = torch.stack(ahead).flatten(1, 3)
            updates = orthogonalized(matrices.to(self.matrix_dtype)).float().reshape(-1, *kernels[0].shape)
            torch._foreach_mul_(kernels, 1 - rate * group["weight_decay"])
            scale = RMS * max(matrices.shape[1:]) ** 0.5
            torch._foreach_add_(kernels, list(updates.unbind()), alpha=-rate * scale)

    def _momentum(self, kernel):
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        return state["momentum"]
