"""Checkpoints as files: written whole or not at all, recognised by their checksum, the last ones kept. No Keras here.

A checkpoint is a pair: `epoch-000012.npz` and `epoch-000012.json`, which has the checksums of both and is
written last. Without it, or where the checksum does not fit, the checkpoint counts as half-written.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable

from keras_sphereface.files import atomic_writer, flush, read_json, sha256, sync_folder
from keras_sphereface.hints import Path

log = logging.getLogger(__name__)

PREFIX, SUFFIX = "epoch-", ".npz"
FORMAT = 1


class CheckpointFiles:
    """The checkpoints in a folder.

    Args:
        folder: The folder; made when the first checkpoint is written.
        keep: How many of the last ones are kept.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = pathlib.Path(folder), keep

    def paths(self) -> list[pathlib.Path]:
        """Paths of the files that have their description beside them, oldest first."""
        return sorted(path for path in self._files() if _description_path(path).is_file())

    def _files(self):
        found = self.folder.glob(f"{PREFIX}[0-9]*{SUFFIX}")
        return [path for path in found if path.stem.removeprefix(PREFIX).isdecimal()]

    def newest(self) -> tuple[pathlib.Path, dict] | tuple[None, None]:
        """The newest checkpoint that is whole.

        Returns:
            `(path, description)`, or `(None, None)` where there is none.
        """
        for path in reversed(self.paths()):
            try:
                return path, _checked_description(path)
            except (OSError, ValueError) as error:
                log.warning("%s is half-written or damaged (%s); the checkpoint before it is used", path, error)
        return None, None

    def newest_description(self) -> dict:
        """The newest description that is whole, whatever its file is; empty where there is none."""
        for path in reversed(self.paths()):
            with contextlib.suppress(OSError, ValueError):
                return _read_description(path)
        return {}

    def last_number(self) -> int:
        """Number of epochs done of the last checkpoint, whole or not; 0 where there is none."""
        return max((int(path.stem.removeprefix(PREFIX)) for path in self.paths()), default=0)

    def write(self, epoch: int, save: Callable[[pathlib.Path], None], description: dict) -> pathlib.Path:
        """Writes a checkpoint, then removes the oldest ones.

        Args:
            epoch: Number of epochs done.
            save: Called with a path that ends in `.npz`; writes the variables there.
            description: Dictionary of JSON values to keep beside them.

        Returns:
            Path of the file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{PREFIX}{epoch:06d}{SUFFIX}"
        temporary = self.folder / f"unfinished{SUFFIX}"
        try:
            save(temporary)
            flush(temporary)
            description = {"format": FORMAT, **description, "sha256": sha256(temporary)}
            _description_path(path).unlink(missing_ok=True)  # of an earlier run that got as far
            os.replace(temporary, path)
            sync_folder(self.folder)
            with atomic_writer(_description_path(path)) as file:
                file.write(json.dumps({**description, "seal": _seal(description)}).encode())
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._remove_old(path)
        return path

    def _remove_old(self, newest):
        """Removes all but the last ones; never the newest, whatever the numbers of those that lie there."""
        kept = {newest, *self.paths()[-self.keep :]}
        for path in self._files():
            if path not in kept:
                _description_path(path).unlink(missing_ok=True)  # first: without it the file counts for nothing
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f".{PREFIX}*.json.*.tmp"):  # of a process that was killed while it wrote one
            path.unlink(missing_ok=True)


def _description_path(path):
    return path.with_name(path.name.removesuffix(SUFFIX) + ".json")


def _read_description(path):
    description = read_json(_description_path(path))
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"its description is not of format {FORMAT}")
    if description.pop("seal", None) != _seal(description):
        raise ValueError("its description's checksum is wrong")
    return description


def _checked_description(path):
    description = _read_description(path)
    if sha256(path) != description.get("sha256"):
        raise ValueError("its checksum is wrong")
    return description


def _seal(description):
    """The SHA-256 of a description: a flipped bit may leave its JSON well-formed."""
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()
