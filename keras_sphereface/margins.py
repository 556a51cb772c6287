r"""Margins: pairs of angular functions, a table of them by name, and their application to cosines.

A new margin is two small pure functions and one line:

```python
margin = keras_sphereface.margins.register(
    "half_angle", psi=lambda theta, m: keras.ops.cos(theta) - m * keras.ops.sin(theta / 2) ** 2, neutral=0.0
)
head = keras_sphereface.heads.MarginHead(1000, margin="half_angle", margin_value=0.3)
```
"""

import dataclasses
import inspect
import math
from collections.abc import Callable

import keras
from keras import ops

from keras_sphereface import angular
from keras_sphereface.arguments import is_number
from keras_sphereface.errors import did_you_mean
from keras_sphereface.hints import Tensor

# Angles come from cosines clipped to +-(1 - this), as in the authors' code: the derivative of arccos is infinite at +-1.
COSINE_CLIP = 1e-5


@dataclasses.dataclass(frozen=True)
class Margin:
    """A margin: what becomes of the target's angle (psi) and of the other classes' angles (eta).

    Args:
        name: The name under which `get` finds it and a saved head refers to it.
        psi: Function `(theta, margin_value) -> tensor`, the target's logit on the unit sphere, or None for the cosine.
        eta: The same for the other classes, or None for the cosine. An eta costs a pass over (batch, classes).
        eta_of_cosine: Function `(cosines, margin_value) -> tensor`, eta where there is a quicker way than by
            the angle. Used where nothing is differentiated.
        neutral: The margin value at which the head has no margin: 1.0 for multiplicative margins, 0.0 for additive ones.
            It is also the smallest value allowed, and where a margin schedule starts.
        largest: The largest value allowed. Defaults to infinity.

    Raises:
        TypeError: If one of the functions is neither a function nor None.
        ValueError: If `neutral` is not a finite number.

    Example:
    >>> margin = keras_sphereface.margins.Margin("shift", psi=lambda theta, m: keras.ops.cos(theta) - m, neutral=0.0)
    >>> margin.validate(0.2)
    0.2
    """

    name: str
    psi: Callable | None = None
    eta: Callable | None = None
    eta_of_cosine: Callable | None = None
    neutral: float = 1.0
    largest: float = math.inf

    def __post_init__(self):
        for field in ("psi", "eta", "eta_of_cosine"):
            function = getattr(self, field)
            if function is not None and not callable(function):
                raise TypeError(
                    f"`{field}` of a margin must be a function (theta, margin_value) -> tensor or None. "
                    f"Received: {field}={function!r}"
                )
        if not is_number(self.neutral):
            raise ValueError(f"`neutral` of a margin must be a finite number. Received: neutral={self.neutral!r}")

    def validate(self, value: float) -> float:
        """Returns `value` as a float if it is a margin of this kind's range; raises ValueError otherwise."""
        if not is_number(value):
            raise ValueError(f"`margin` must be a finite number. Received: margin={value!r}")
        if value < self.neutral:
            why = "" if self.name in _OWN else ", below its `neutral`, which is 1.0 unless `register` is given another"
            raise ValueError(
                f"The margin of {self.name!r} must be at least {self.neutral}. Received: margin={value}{why}"
            )
        if value > self.largest:
            raise ValueError(
                f"The margin of {self.name!r} must be at most {self.largest:.4g}; angles are in radians. "
                f"Received: margin={value}"
            )
        return float(value)


_TABLE = {
    margin.name: margin
    for margin in (
        Margin("sphereface", psi=angular.sphereface_psi),
        Margin("sphereface_r_v1", psi=angular.sphereface_r_v1_psi),
        Margin(
            "sphereface_r_v2",
            eta=angular.sphereface_r_v2_eta,
            eta_of_cosine=angular.sphereface_r_v2_eta_of_cosine,
        ),
        Margin("cosface", psi=angular.cosface_psi, neutral=0.0, largest=2.0),
        Margin("arcface", psi=angular.arcface_psi, neutral=0.0, largest=math.pi),
        Margin("normface", neutral=0.0),
    )
}


_OWN = frozenset(_TABLE)


def names() -> list[str]:
    """Returns the names of the registered margins, sorted.

    Example:
    >>> keras_sphereface.margins.names()
    ['arcface', 'cosface', 'normface', 'sphereface', 'sphereface_r_v1', 'sphereface_r_v2']
    """
    return sorted(_TABLE)


def register(
    name: str,
    psi: Callable | None = None,
    eta: Callable | None = None,
    neutral: float = 1.0,
    replace: bool = False,
) -> Margin:
    """Adds a margin to the table, so that heads take it by name and saved heads find it again.

    Args:
        name: A name that is not taken.
        psi: Function `(theta, margin_value) -> tensor` for the target, or None for the cosine.
        eta: The same for the other classes, or None for the cosine.
        neutral: The margin value that means no margin. Defaults to `1.0` (a multiplicative margin).
        replace: Whether an earlier margin of yours gives its name up, as in a notebook's cell that was changed; heads that
            have it keep it. Defaults to `False`.

    Returns:
        The `Margin`; the first one, where the same lines register it again, as a notebook's cell does.

    Raises:
        TypeError: If a function does not take `(theta, margin_value)`.
        ValueError: If the name is taken by another margin or isn't a non-empty string, or `neutral` is no finite number.

    Example:
    >>> margin = keras_sphereface.margins.register("shift", psi=lambda theta, m: keras.ops.cos(theta) - m, neutral=0.0)
    >>> head = keras_sphereface.heads.MarginHead(1000, margin="shift", margin_value=0.2)
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"A margin's name must be a non-empty string. Received: name={name!r}")
    margin = Margin(name, psi=psi, eta=eta, neutral=neutral)
    for field in ("psi", "eta"):
        _check_arguments(field, getattr(margin, field))
    if replace and name not in _OWN:
        _TABLE[name] = margin
    if not _is_same(_TABLE.setdefault(name, margin), margin):
        advice = "Choose another name" if name in _OWN else "Choose another name, or give replace=True"
        raise ValueError(f"A margin named {name!r} is registered already. {advice}. Taken: {names()}")
    return _TABLE[name]


def _check_arguments(field, function):
    """A function of one argument would fail in the first loss only."""
    try:
        signature = inspect.signature(function) if function else None
    except ValueError:  # of a function that is not Python's
        return
    try:
        if signature:
            signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"`{field}` of a margin must be a function (theta, margin_value) -> tensor. Received: {field}={function!r}, "
            f"which takes {signature}"
        ) from error


def _is_same(one, other):
    """Whether two margins are equal, or made by the same lines: functions that are made anew are other objects."""

    def essence(margin):
        functions = (margin.psi, margin.eta, margin.eta_of_cosine)
        parts = ("__defaults__", "__kwdefaults__", "__closure__")
        return [margin.neutral, *([_lines(f), *(getattr(f, part, f) for part in parts)] for f in functions)]

    return one == other or essence(one) == essence(other)


def _lines(function):
    """What a function does, wherever its lines are."""
    code = getattr(function, "__code__", function)
    if not inspect.iscode(code):
        return code
    constants = [_lines(value) if inspect.iscode(value) else repr(value) for value in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def get(identifier: str | Margin) -> Margin:
    """Returns the `Margin` for a registered name, or the `Margin` given.

    Args:
        identifier: One of `names()`, or a `Margin`.

    Returns:
        The `Margin`.

    Raises:
        ValueError: If no margin has that name.

    Example:
    >>> keras_sphereface.margins.get("sphereface_r_v2").neutral
    1.0
    """
    if isinstance(identifier, Margin):
        return identifier
    if isinstance(identifier, str) and identifier in _TABLE:
        return _TABLE[identifier]
    raise ValueError(
        f"Unknown margin. Expected a Margin or one of {names()}. Received: margin={identifier!r}."
        f"{did_you_mean(identifier, names())}"
    )


def serialize(margin: Margin) -> str:
    """Returns the name that `get` turns back into `margin`.

    Args:
        margin: A `Margin`.

    Returns:
        Its name.

    Raises:
        ValueError: If the margin isn't registered, since a saved head could not find it again.

    Example:
    >>> keras_sphereface.margins.serialize(keras_sphereface.margins.get("arcface"))
    'arcface'
    """
    if _TABLE.get(margin.name) != margin:
        raise ValueError(
            f"The margin {margin.name!r} is not registered, so a saved head could not find it again. "
            "Register it first: keras_sphereface.margins.register(name, psi=..., eta=...)"
        )
    return margin.name


def clip(cosines: Tensor) -> Tensor:
    """Cosines clipped so that the derivative of their angles stays finite.

    Args:
        cosines: Float tensor of any shape.

    Returns:
        Float tensor of the same shape, in [-1 + 1e-5, 1 - 1e-5].

    Example:
    >>> np.asarray(keras_sphereface.margins.clip(np.float32([1.0, 0.5]))).round(6)
    array([0.99999, 0.5    ], dtype=float32)
    """
    return ops.clip(cosines, COSINE_CLIP - 1.0, 1.0 - COSINE_CLIP)


def angles(cosines: Tensor) -> Tensor:
    """Angles in radians of clipped cosines.

    Args:
        cosines: Float tensor of any shape.

    Returns:
        Float tensor of the same shape, from 0.0045 to pi - 0.0045: cosines are clipped as by `clip`.

    Example:
    >>> np.asarray(keras_sphereface.margins.angles(np.float32([1.0, 0.5, 0.0]))).round(4)
    array([0.0045, 1.0472, 1.5708], dtype=float32)
    """
    return ops.arccos(clip(cosines))


def functions_of_cosine(margin: Margin, value: float | Tensor) -> tuple[Callable | None, Callable | None]:
    """Eta and psi of a margin as functions of cosines, whose values count and not their gradients.

    Args:
        margin: A `Margin`.
        value: The margin's size, a float or scalar tensor.

    Returns:
        `(others, targets)`: functions `cosines -> values`, or None for the cosine itself.

    Example:
    >>> others, targets = keras_sphereface.margins.functions_of_cosine(keras_sphereface.margins.get("cosface"), 0.35)
    >>> others is None, np.asarray(targets(np.float32([0.5]))).round(2)
    (True, array([0.15], dtype=float32))
    """

    def by_angle(function):
        return None if function is None else lambda cosines: function(angles(cosines), value)

    # A polynomial is one loop where the backend compiles it. PyTorch would make a pass of each term.
    if margin.eta_of_cosine is None or keras.backend.backend() == "torch":
        return by_angle(margin.eta), by_angle(margin.psi)
    return lambda cosines: margin.eta_of_cosine(clip(cosines), value), by_angle(margin.psi)


def detach_characteristic(value: Tensor, cosines: Tensor) -> Tensor:
    r"""Characteristic gradient detachment (CGD): the forward value is `value`, the gradient that of `cosines`.

    $g = \cos\theta + \mathrm{stop\_gradient}(f(\theta) - \cos\theta)$, written so that the forward value is exactly
    `value`.

    Args:
        value: Float tensor of any shape: what psi or eta makes of the cosines.
        cosines: Float tensor of the same shape.

    Returns:
        Float tensor of the same shape.

    Example:
    >>> cosines = keras.ops.convert_to_tensor([0.5, 0.2])
    >>> np.asarray(keras_sphereface.margins.detach_characteristic(cosines - 0.35, cosines)).round(2)  # its gradient is 1
    array([ 0.15, -0.15], dtype=float32)

    Reference: arXiv 2109.05565, section 3.4.
    """
    return ops.stop_gradient(value) + (cosines - ops.stop_gradient(cosines))


def target_mask(labels: Tensor, num_classes: int) -> Tensor:
    """Booleans, true at each example's label.

    Args:
        labels: Integer tensor of shape `(batch,)`, in `[0, num_classes)`.
        num_classes: Number of classes, a positive integer.

    Returns:
        Boolean tensor of shape `(batch, num_classes)`.

    Example:
    >>> np.asarray(keras_sphereface.margins.target_mask(keras.ops.convert_to_tensor([1, 0]), num_classes=3))
    array([[False,  True, False],
           [ True, False, False]])
    """
    return ops.equal(ops.arange(num_classes, dtype=labels.dtype)[None, :], labels[:, None])


def apply_margin(cosines: Tensor, labels: Tensor, margin: Margin, value: float | Tensor, detach: bool = True) -> Tensor:
    r"""Applies a margin to cosines: $g_y = \psi(\theta_y)$ and $g_i = \eta(\theta_i)$ for the other classes.

    Only the targets' cosines, `(batch,)` values, go through psi; a trigonometric pass over `(batch, classes)` is made
    only for a margin whose eta isn't the cosine.

    Args:
        cosines: Float tensor of shape `(batch, classes)`, in [-1, 1].
        labels: Integer tensor of shape `(batch,)`, in `[0, classes)`.
        margin: A `Margin`.
        value: The margin's size, a float or scalar tensor.
        detach: Whether to use characteristic gradient detachment. Defaults to `True`.

    Returns:
        Float tensor of shape `(batch, classes)`: the logits on the unit sphere, before the scale.

    Example:
    >>> cosines, labels = keras.ops.convert_to_tensor([[0.5, 0.2]]), keras.ops.convert_to_tensor([0])
    >>> cosface = keras_sphereface.margins.get("cosface")
    >>> np.asarray(keras_sphereface.margins.apply_margin(cosines, labels, cosface, 0.35)).round(2)
    array([[0.15, 0.2 ]], dtype=float32)
    """
    if margin.psi is None and margin.eta is None:
        return cosines
    target_cosines = ops.take_along_axis(cosines, labels[:, None], axis=1)
    if detach:
        eta, psi = functions_of_cosine(margin, value)
        others = cosines if eta is None else detach_characteristic(eta(cosines), cosines)
        targets = target_cosines if psi is None else detach_characteristic(psi(target_cosines), target_cosines)
    else:
        others = cosines if margin.eta is None else margin.eta(angles(cosines), value)
        targets = target_cosines if margin.psi is None else margin.psi(angles(target_cosines), value)
    return ops.where(target_mask(labels, ops.shape(cosines)[-1]), targets, others)
