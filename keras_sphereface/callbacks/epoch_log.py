"""The logs of every epoch in a CSV file."""

import csv
import io
import pathlib

import keras

from keras_sphereface import distribution
from keras_sphereface.errors import FileFormatError, shown
from keras_sphereface.files import atomic_writer
from keras_sphereface.hints import Path

EPOCH = "epoch"


class EpochLog(keras.callbacks.Callback):
    """Writes the logs of every epoch into a CSV file, a row each, and goes on in the file of a run that goes on.

    Unlike Keras's `CSVLogger` it takes logs that not every epoch has, such as those of a `PairVerification` with `every`:
    a column is added when its first number comes, and is empty where there is none. An epoch that is done again replaces
    its row. Put it after the callbacks whose logs it is to have. Of several processes, the first one writes.

    Args:
        path: The file; its folder is made if missing.

    Raises:
        FileFormatError: When training begins, if there is another file under this name.
        OSError: If it cannot be written.

    Example:
    >>> log = keras_sphereface.callbacks.EpochLog("run/log.csv")
    >>> trainer.fit(data, steps_per_epoch=100, epochs=3, shuffle=False, callbacks=[log])
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = pathlib.Path(path)
        self._rows = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Reads what there is, so that a file that is no log is known before an epoch is spent."""
        if distribution.is_chief():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = _read(self.path) if self.path.exists() else {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the file anew, with this epoch's row in place of it and of later ones."""
        if not distribution.is_chief():
            return
        self._rows = {number: row for number, row in self._rows.items() if number < epoch}
        self._rows[epoch] = {EPOCH: epoch, **{name: _plain(value) for name, value in (logs or {}).items()}}
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        with atomic_writer(self.path) as file:
            file.write(text.getvalue().encode())


def _plain(value):
    """A number as Python's own, which prints with all of its digits."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _read(path):
    """The rows of a log by their epochs, without the columns in which they have nothing."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                int(row[EPOCH]): {name: row[name] for name in row if name and row[name]} for row in csv.DictReader(file)
            }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise FileFormatError(
            f"{path}: expected the log of a run, with an `{EPOCH}` in every row. Received: {shown(error)}. Remove it, or "
            "choose another name"
        ) from error
