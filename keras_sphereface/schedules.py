"""Learning-rate schedules of the papers, made from Keras's own."""

import itertools
from collections.abc import Sequence

import keras
from keras import ops

from keras_sphereface.arguments import is_number, is_whole, list_of, whole_number
from keras_sphereface.errors import did_you_mean
from keras_sphereface.hints import Tensor

NAMES = ("steps", "cosine", "polynomial", "constant")

# The learning rate is divided by 10 at these shares of the run: 80,000, 140,000 and 200,000 of 240,000 steps, as the
# authors' OpenSphere trains IResNet-100 on MS1M (its config/train/ms1m_iresnet100_arcface.yml).
STEP_SHARES = (1 / 3, 7 / 12, 5 / 6)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Goes linearly from 0 to a schedule's first value, then follows the schedule from its start.

    Args:
        schedule: A `LearningRateSchedule`.
        warmup_steps: Number of steps of the linear part, at least 0.

    Raises:
        TypeError: If the schedule is none, e.g. a number.
        ValueError: If `warmup_steps` is no integer of at least 0.

    Example:
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
    >>> schedule = keras_sphereface.schedules.Warmup(cosine, warmup_steps=10)
    >>> [round(float(schedule(step)), 2) for step in (0, 4, 9)]
    [0.01, 0.05, 0.1]
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, warmup_steps: int):
        if not callable(schedule):
            raise TypeError(
                "`schedule` must be a LearningRateSchedule of Keras; learning_rate('constant', 0.1, steps) makes one of a "
                f"number. Received: schedule={schedule!r}"
            )
        self.schedule = schedule
        self.warmup_steps = whole_number("warmup_steps", warmup_steps, 0)

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        after = self.schedule(ops.maximum(step - self.warmup_steps, 0.0))
        if self.warmup_steps == 0:
            return after
        during = self.schedule(ops.zeros_like(step)) * (step + 1.0) / self.warmup_steps
        return ops.where(step < self.warmup_steps, during, after)

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "warmup_steps": self.warmup_steps,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Warmup":
        """Makes the schedule again from `get_config`'s dictionary."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["warmup_steps"])


def learning_rate(
    name: str, peak: float, total_steps: int, warmup_steps: int = 0, boundaries: Sequence[int] | None = None
) -> Warmup:
    """Makes a learning-rate schedule.

    Args:
        name: `"steps"` (divided by 10 at each boundary), `"cosine"` (half a cosine down to 0), `"polynomial"` (squared
            decay to 0, as arcface_torch) or `"constant"`.
        peak: The largest learning rate, above 0 and finite.
        total_steps: Number of steps of the whole run, the warm-up included.
        warmup_steps: Steps of linear warm-up from 0. Defaults to `0`.
        boundaries: Steps after which `"steps"` divides by 10: ascending, after the warm-up; of no other schedule.
            Defaults to 1/3, 7/12 and 5/6 of the run. Steps that a shorter run does not reach do no harm.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: For an unknown name or numbers out of range.

    Example:
    >>> schedule = learning_rate("polynomial", peak=0.1, total_steps=10_000, warmup_steps=500)
    >>> optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    """
    if name not in NAMES:
        raise ValueError(
            f"The schedule must be one of {list(NAMES)}. Received: name={name!r}.{did_you_mean(name, NAMES)}"
        )
    if boundaries is not None and name != "steps":
        raise ValueError(f"Only 'steps' has `boundaries`. Received: name={name!r}, boundaries={boundaries!r}")
    total_steps, warmup_steps = whole_number("total_steps", total_steps), whole_number("warmup_steps", warmup_steps, 0)
    if not is_number(peak) or peak <= 0 or warmup_steps >= total_steps:
        raise ValueError(
            "A schedule needs a finite peak > 0 and 0 <= warmup_steps < total_steps. "
            f"Received: peak={peak!r}, warmup_steps={warmup_steps}, total_steps={total_steps}"
        )
    schedules = keras.optimizers.schedules
    remaining = total_steps - warmup_steps
    if name == "cosine":
        schedule = schedules.CosineDecay(peak, remaining)
    elif name == "polynomial":
        schedule = schedules.PolynomialDecay(peak, remaining, end_learning_rate=0.0, power=2.0)
    else:
        steps = [] if name == "constant" else _boundaries(boundaries, total_steps, warmup_steps)
        values = [peak * 0.1**count for count in range(len(steps) + 1)]
        # Without a boundary Keras's class has no step to compare with: one past the end stands for none.
        schedule = schedules.PiecewiseConstantDecay(steps or [total_steps], values if steps else [peak, peak])
    return Warmup(schedule, warmup_steps)


def _boundaries(boundaries, total_steps, warmup_steps):
    """The steps that divide the learning rate, counted from the end of the warm-up."""
    if boundaries is None:
        what = "1/3, 7/12 and 5/6 of the run, where 'steps' divides,"
        steps = [round(share * total_steps) for share in STEP_SHARES]
    else:
        what = "`boundaries`"
        given = list_of("boundaries", boundaries, is_whole, "a list of steps, e.g. [50, 80]", empty_allowed=True)
        steps = [int(step) for step in given]
    if any(later <= step for step, later in itertools.pairwise([warmup_steps, *steps])):
        raise ValueError(
            f"{what} must be increasing steps after the warm-up. "
            f"Received: {steps} with warmup_steps={warmup_steps}, total_steps={total_steps}"
        )
    return [step - warmup_steps for step in steps]
