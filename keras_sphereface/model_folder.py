"""A model as a folder in the layout of Keras and of the Hugging Face Hub, with checksums; and `.keras` files.

The folder has `config.json`, `metadata.json` and `model.weights.h5`, which `keras.saving.load_model(folder)` reads, and
`preset.json`, this package's description with the SHA-256 of the other three.
"""

import json
import pathlib
import shutil
import struct
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING

from keras_sphereface import layer_graph, model_size, safe_config, weights_file
from keras_sphereface.errors import FileFormatError, is_of_system, one_line, shown
from keras_sphereface.files import SHA256, flush, read_json, sha256, sync_folder
from keras_sphereface.hints import Path
from keras_sphereface.version import __version__

if TYPE_CHECKING:
    import keras

CONFIG, METADATA, WEIGHTS, PRESET = "config.json", "metadata.json", "model.weights.h5", "preset.json"
KERAS_FILES = (CONFIG, METADATA, WEIGHTS)
PRESET_FORMAT = 1

_NOT_PUBLISHED = (
    "Replace it by Keras's own layers, e.g. a Lambda by Rescaling, or share the model itself with model.save"
)
_REASON_LENGTH = 500  # of Keras's own errors, some of which list the values of a weight

# Keras stores without compression; text shrinks to a twentieth at most, weights hardly at all.
_EXPANSION, _SMALL = 20, 1 << 20

# What zipfile raises on broken archives, depending on where in them it notices.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, struct.error)


def check_sha256(path: Path, expected: str, source: str | None = None) -> None:
    """Raises `FileFormatError` unless the file has this SHA-256."""
    found = sha256(path)
    if found != expected:
        raise FileFormatError(
            f"{source or path}: sha256 is {found}, expected {expected}: the file is damaged or was changed. "
            "Get it again; do not use this one"
        )


def write(model: "keras.Model", folder: Path, description: dict | None = None) -> dict:
    """Writes a model as a folder: layers and weights, not how it was compiled.

    Args:
        model: As in `embedder.as_embedder`.
        folder: Folder to write into; made if absent.
        description: Dictionary to keep in `preset.json`, e.g. `name`, `data`, `license`, `metrics`. Defaults to `None`.

    Returns:
        The content of `preset.json`, a dictionary; `sha256` has the files' checksums, `keras_alone` says whether
        `keras.saving.load_model` reads the folder without this package.

    Raises:
        FileFormatError: If the model has layers or weights that `read` would refuse.
        RuntimeError: On Keras's OpenVINO backend, which only predicts.
    """
    import keras

    from keras_sphereface.embedder import as_embedder

    layer_graph.check_writes("Publishing")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = layer_graph.with_keras_layers(layer_graph.inline(as_embedder(model)))
    weights_file.check_finite(flat, flat.name)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:  # Keras cannot write where it has written before
        fresh = pathlib.Path(fresh)
        keras.saving.save_model(flat, fresh, zipped=False)
        config = _read_config(fresh / CONFIG, flat.name)
        safe_config.check(config, flat.name, _NOT_PUBLISHED)
        (fresh / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        preset = {
            "format": PRESET_FORMAT,
            "keras_sphereface": __version__,
            "keras": keras.__version__,
            "image_size": list(flat.input_shape[1:3]),
            "embedding_dim": flat.output_shape[-1],
            "parameters": flat.count_params(),
            "keras_alone": not safe_config.needs_package(config),
            **(description or {}),
            "sha256": {name: sha256(fresh / name) for name in KERAS_FILES},
        }
        text = json.dumps(preset, indent=2, ensure_ascii=False)
        (fresh / PRESET).write_text(text + "\n", encoding="utf-8")
        flush(fresh)
        for name in (*KERAS_FILES, PRESET):  # all are written by now: an older model is not lost to a full disk
            (fresh / name).replace(folder / name)
        sync_folder(folder)
    return preset


def read_checksums(path: Path) -> dict[str, str]:
    """Reads the checksums of a `preset.json`.

    Args:
        path: Path of the file.

    Returns:
        Dictionary from the name of a file of the folder to its SHA-256.

    Raises:
        FileFormatError: If it is broken, or names files outside the folder.
    """
    preset = read_json(path, advice="Publish the model again")
    try:
        version, checksums = preset["format"], dict(preset["sha256"].items())
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path}: not a preset description ({error!r}). Publish the model again") from error
    if not isinstance(version, int) or not 1 <= version <= PRESET_FORMAT:
        raise FileFormatError(f"{path}: format {version!r}, expected 1 to {PRESET_FORMAT}. Update keras_sphereface")
    unknown = sorted(set(checksums) - set(KERAS_FILES))
    missing = sorted(set(KERAS_FILES) - set(checksums))
    if unknown or missing:
        raise FileFormatError(
            f"{path}: `sha256` must name {', '.join(KERAS_FILES)} and nothing else. Received: {shown(sorted(checksums))}"
        )
    for name, digest in checksums.items():
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise FileFormatError(
                f"{path}: the sha256 of {name} is {shown(digest)}, expected 64 hexadecimal digits. Publish the model again"
            )
    return checksums


def read(folder: Path, source: str | None = None) -> "keras.Model":
    """Reads a model folder; checksums are checked where it has a `preset.json`.

    Args:
        folder: A folder with `config.json` and `model.weights.h5`.
        source: What to call it in errors. Defaults to the folder.

    Returns:
        The embedder, a `keras.Model`, not compiled.

    Raises:
        FileFormatError: If a file is missing, broken, changed, or names code, or a weight is not finite.
    """
    folder = pathlib.Path(folder)
    source = source or str(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileFormatError(f"{source}: {name} is missing. A model folder has {', '.join(KERAS_FILES)}")
    if (folder / PRESET).is_file():
        checksums = read_checksums(folder / PRESET)
        if missing := [name for name in checksums if not (folder / name).is_file()]:
            raise FileFormatError(f"{source}: {', '.join(missing)} is missing. Get the whole folder again")
        for name, expected in checksums.items():
            check_sha256(folder / name, expected, f"{source}/{name}")
    config = _read_config(folder / CONFIG, f"{source}/{CONFIG}")
    safe_config.check(config, f"{source}/{CONFIG}")
    model_size.check(config, weights_file.check_hdf5(folder / WEIGHTS, f"{source}/{WEIGHTS}"), source)
    return _load(folder / WEIGHTS, config, source)


def read_keras_file(path: Path) -> "keras.Model":
    """Reads a `.keras` file under the same rules as `read`.

    Args:
        path: Path of the file.

    Returns:
        The embedder, a `keras.Model`, not compiled.

    Raises:
        FileFormatError: If the file is broken, claims more content than it holds, or names code, or a weight is not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, pathlib.Path(folder), path)
        except (*_BROKEN_ZIP, KeyError) as error:
            if is_of_system(error):
                raise
            raise FileFormatError(
                f"{path}: not a .keras file ({one_line(error)}). Save it again with model.save"
            ) from error
        return read(folder, str(path))


def _extract(archive, folder, path):
    """Writes the three files that a model is made of; no other name in the archive is looked at."""
    names = set(archive.namelist())
    for name in KERAS_FILES:
        if name not in names and name != CONFIG:  # `read` says what is missing; without a configuration it is no model
            continue
        entry = archive.getinfo(name)
        if entry.file_size > _EXPANSION * entry.compress_size + _SMALL:
            raise FileFormatError(
                f"{path}: {name} claims {entry.file_size} bytes, stored in {entry.compress_size}. Do not use this file"
            )
        with archive.open(entry) as source, open(folder / name, "wb") as target:
            shutil.copyfileobj(source, target)
        if name == CONFIG:
            safe_config.check(_read_config(folder / name, path), path)


def _read_config(path, source):
    return read_json(path, source, object_hook=safe_config.without_compilation)


def _load(weights, config, source):
    """Has Keras read a folder that holds nothing but what was checked: the configuration as parsed, and the weights."""
    import keras

    from keras_sphereface.embedder import as_embedder

    with tempfile.TemporaryDirectory() as checked:
        checked = pathlib.Path(checked)
        _link(weights, checked / WEIGHTS)
        try:
            (checked / CONFIG).write_text(json.dumps(config), encoding="utf-8")
            model = keras.saving.load_model(checked, compile=False, safe_mode=True)
        except Exception as error:  # Keras has no error of its own for broken files, and h5py's are many
            if is_of_system(error):
                raise
            reason = one_line(error)[:_REASON_LENGTH]
            raise FileFormatError(
                f"{source}: Keras could not load the whole model ({reason}). Save it again"
            ) from error
    try:
        embedder = as_embedder(model)
    except ValueError as error:
        raise FileFormatError(f"{source}: {error}") from error
    weights_file.check_finite(embedder, source)
    return embedder


def _link(source, target):
    """Makes a large file appear in another folder; a copy where the system has no links or does not allow them."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
