"""Checkpoints from which a training goes on exactly."""

import contextlib
import json
import logging
import pathlib
import tempfile
from collections.abc import Sequence

import keras

from keras_sphereface import distribution
from keras_sphereface.arguments import whole_number
from keras_sphereface.callbacks import random_state, variables_file
from keras_sphereface.callbacks.checkpoint_files import CheckpointFiles
from keras_sphereface.callbacks.counting import check_length, done_in_epoch
from keras_sphereface.errors import CheckpointError, DivergenceError, one_line, shown
from keras_sphereface.hints import Path

log = logging.getLogger(__name__)


class Checkpoint(keras.callbacks.Callback):
    """Saves the state of the training at the end of every epoch, so that `resume` goes on exactly from there.

    Saved are weights, optimizer (slots, step, averaged weights, loss scale), margin, and the random state of the layers,
    of Python and of NumPy. A checkpoint is written under a temporary name, flushed to the disk and renamed; its
    description with a checksum is written last. Where the newest is half-written or damaged, the one before it is
    used. Weights that are not finite are never written.

    The end of an epoch is Keras's: pass `steps_per_epoch` to `fit` for checkpoints every so many steps.

    Args:
        folder: Where checkpoints go; made if missing.
        keep: How many of the last ones are kept, at least 1. Defaults to `2`.
        run: Dictionary of JSON values that must be the same when the run goes on: all that makes it this run and no other,
            e.g. the network, the margin, the global batch size, the number of steps of an epoch, the learning rate and
            the seed of the data. `resume` refuses other values, naming them; a name that only one of the two has is not
            compared. The number of replicas need not be among them: the same global batch on another number continues
            the run. Defaults to `None`.
        may_change: Names in `run` whose values may be others from here on, because you want it so, e.g.
            `("learning_rate",)`; the change is logged. Defaults to none.

    Attributes:
        step: Number of batches trained on so far, skipped ones included: the `start_step` of the data.

    Raises:
        ValueError: If `keep` is no integer of at least 1, a value of `run` is none of JSON's, or `may_change` names what
            `run` has not.
        DivergenceError: If a weight is not finite at the end of an epoch.
        CheckpointError: If a checkpoint cannot be written.

    Example:
    >>> run = {"batch_size": 128, "steps_per_epoch": 1000, "seed": 1}
    >>> checkpoint = keras_sphereface.callbacks.Checkpoint("run/checkpoints", run=run)
    >>> epoch = checkpoint.resume(trainer)  # 0 in a new folder
    >>> data = dataset.batches(128, seed=1, start_step=checkpoint.step)
    >>> trainer.fit(data, initial_epoch=epoch, epochs=20, steps_per_epoch=1000, shuffle=False, callbacks=[checkpoint])
    """

    def __init__(self, folder: Path, keep: int = 2, run: dict | None = None, may_change: Sequence[str] = ()):
        super().__init__()
        self._files = CheckpointFiles(folder, whole_number("keep", keep))
        self.run = _as_json_has_it(run or {})
        if unknown := sorted({*may_change} - {*self.run}):
            raise ValueError(f"`may_change` must name values of `run`: {sorted(self.run)}. Received: {unknown}")
        self.may_change = tuple(may_change)
        self.step = 0
        self._epoch_first = self._epoch_steps = 0
        self._begins = False

    @property
    def folder(self) -> pathlib.Path:
        """Where checkpoints go."""
        return self._files.folder

    @property
    def keep(self) -> int:
        """How many of the last ones are kept."""
        return self._files.keep

    def paths(self) -> list:
        """The checkpoints in the folder, oldest first."""
        return self._files.paths()

    def resume(self, model: keras.Model) -> int:
        """Loads the newest whole checkpoint into a built and compiled model, and sets `step`.

        Returns:
            The number of epochs done, 0 where there is no checkpoint.

        Raises:
            ValueError: If the checkpoint is another run's: other values of `run`, another network, precision or optimizer;
                if the model is not built and compiled; or if processes that train together do not find the same one.
            CheckpointError: If there are checkpoints, but none is whole.
        """
        if not model.built or model.optimizer is None:
            raise ValueError(
                f"{self.folder}: a model is resumed once it has its variables and its optimizer. Received: one that is not "
                f"{'compiled' if model.built else 'built; call it on a batch first'}"
            )
        path, description = self._files.newest()
        distribution.check_same(0 if path is None else description["step"], f"the newest step in {self.folder}")
        if path is None:
            if self.paths():
                raise CheckpointError(
                    f"{self.folder}: none of its {len(self.paths())} checkpoints is whole. Remove them to start anew"
                )
            return 0
        self._check_run(path, description["run"])
        # Variables of tf.distribute can be made and loaded only in the scope of their strategy.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)
            variables_file.read(path, _variables(model))
        random_state.restore(description["random"])
        self.step = description["step"]
        return description["epoch"]

    def saved_run(self) -> dict:
        """The `run` of the newest checkpoint, for values that follow from others if they are not given; empty where none is.

        Example:
        >>> warmup_steps = checkpoint.saved_run().get("warmup_steps", steps // 100)
        """
        return self._files.newest_description().get("run", {})

    def _check_run(self, path, saved):
        changed = [name for name in sorted({*saved} & {*self.run}) if saved[name] != self.run[name]]
        before, now = (
            ", ".join(f"{name}={values[name]!r}" for name in changed if name not in self.may_change)
            for values in (saved, self.run)
        )
        if before:
            raise ValueError(
                f"{path}: this run was begun with {before}. Received: {now}. Use the same, another folder for another run, "
                "or `may_change` (a command's option of this name) for what changes on purpose"
            )
        for name in changed:
            log.warning("The run goes on with %s=%r instead of %r", name, self.run[name], saved[name])

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Makes the folder, so that one that cannot be written to is known before the first checkpoint.

        Raises:
            CheckpointError: If the folder cannot be made, or written to.
            ValueError: If Keras does not know the number of batches of an epoch.
        """
        if distribution.is_chief():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.folder):
                    pass
            except OSError as error:
                raise CheckpointError(
                    f"{self.folder}: checkpoints cannot be written there ({one_line(error)}). Choose another folder"
                ) from error
        check_length(self)
        self._begins = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers how many batches came before.

        Raises:
            ValueError: If a training begins with an epoch that the folder has already: its checkpoints would be the older
                ones, but resumed from.
        """
        if self._begins:
            self._begins = False
            self._check_first(epoch)
        self._epoch_first, self._epoch_steps = self.step, 0

    def _check_first(self, epoch):
        if self._files.last_number() <= epoch:
            return
        path, description = self._files.newest()  # not one that is damaged, which may be done again
        if path is not None and description["epoch"] > epoch:
            raise ValueError(
                f"{self.folder}: has a checkpoint of epoch {description['epoch']}. Received: a training that begins with "
                f"epoch {epoch + 1}. Give `fit` initial_epoch=checkpoint.resume(model) to go on; another run needs another "
                "folder"
            )

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Counts batches."""
        self._epoch_steps = done_in_epoch(self, batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes a checkpoint and removes the oldest ones.

        Raises:
            DivergenceError: If a weight is not finite; nothing is written then.
            CheckpointError: If it cannot be written, e.g. because the disk is full; the one before it is intact.
        """
        self.step = self._epoch_first + self._epoch_steps
        variables = _variables(self.model)
        # A `GuardedOptimizer` keeps the norm of the last gradient, also of one that it did not take.
        measured = getattr(self.model.optimizer, "gradient_norm", None)
        _check_finite([variable for variable in variables if variable is not measured], self.step)
        if not distribution.is_chief():
            for variable in variables:  # Process 0 writes them, and needs this one's part.
                distribution.gathered(variable)
            return
        description = {
            "epoch": epoch + 1,
            "step": self.step,
            "run": self.run,
            "random": random_state.capture(),
        }
        try:
            self._files.write(epoch + 1, lambda path: variables_file.write(path, variables), description)
        except OSError as error:
            last = [path.name for path in self.paths()[-1:]]
            raise CheckpointError(
                f"{self.folder}: the checkpoint after step {self.step} could not be written ({one_line(error)}). "
                f"Last good one: {last[0] if last else 'none'}. Free some room, or end another program that writes there, "
                "then run the same command again"
            ) from error


def _as_json_has_it(run):
    """A dictionary as it is read again from a checkpoint, with lists for tuples."""
    try:
        return json.loads(json.dumps(dict(run), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`run` must be a dictionary of values that JSON knows ({one_line(error)}). Received: run={shown(run)}"
        ) from error


def _variables(model):
    """All that changes in a training, the states of the layers' random numbers included."""
    return [*model.variables, *model.optimizer.variables]


def _check_finite(variables, step):
    for variable in variables:
        values = keras.ops.convert_to_tensor(variable)
        if keras.backend.is_float_dtype(variable.dtype) and not bool(keras.ops.all(keras.ops.isfinite(values))):
            raise DivergenceError(
                f"After step {step} the variable {variable.path!r} is not finite: no checkpoint is written. Resume from the "
                "last one with a lower learning rate (`may_change`), or train under a NonFiniteGuard"
            )
