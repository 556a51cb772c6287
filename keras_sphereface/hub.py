"""Pretrained models: embedded in the package, in files, and on the Hugging Face Hub."""

import dataclasses
import errno
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import keras

from keras_sphereface import hub_arguments, hub_files, model_card, model_folder, presets, weights_file
from keras_sphereface.errors import did_you_mean, shown
from keras_sphereface.hub_errors import HubError
from keras_sphereface.precision import float_policy, with_dtype
from keras_sphereface.version import __version__

HUB_SCHEME = "hf://"

# Files of models that `load_pretrained` doesn't read, by their ending, and what to do with them.
OTHER_FILES = {
    ".weights.h5": "It holds no network: build one, call its load_weights(path), then save('model.keras')",
    ".h5": "Load it with keras.saving.load_model(path), then save('model.keras')",
    ".onnx": "keras_sphereface.Recognizer(path) runs ONNX files",
    ".tflite": "keras_sphereface.Recognizer(path) runs LiteRT files",
    **dict.fromkeys(
        (".pth", ".pt", ".ckpt", ".safetensors"), "Make one of it: keras_sphereface.convert(path, architecture=...)"
    ),
}
FILE_ENDINGS = (".keras", *OTHER_FILES)

__all__ = ["HubError", "Published", "load_pretrained", "push_to_hub"]


def load_pretrained(
    name: str | os.PathLike | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    endpoint: str | None = None,
    dtype: Any = None,
) -> keras.Model:
    """Loads a face model: preprocessing inside, unit-length embeddings out. Never returns random weights.

    Args:
        name: What to load. `None` is the default that is part of the package and needs no network; else the name of a preset
            (`keras_sphereface.presets.names()`), `"hf://organization/repository"`, a folder, or a `.keras` file.
            Defaults to `None`.
        revision: Branch, tag or commit on the Hub; a commit pins the files for good. Defaults to `None`: the preset's
            commit, or `main`.
        token: Hub token for private repositories. Defaults to `None`: the one of the environment or of the login.
        cache_dir: Folder of downloaded files. Defaults to `None`, the Hub client's cache.
        endpoint: URL of another Hub. Defaults to `None`, the environment's `HF_ENDPOINT` or the public one.
        dtype: Dtype policy to compute in, e.g. `"bfloat16"`: several times faster where the hardware has it (GPUs, CPUs with
            AMX). The embedding itself stays float32. Defaults to `None`: the model's own.

    Returns:
        A `keras.Model` from images `(n, height, width, 3)`, RGB 0..255, uint8 or float, to embeddings `(n, d)`.

    Raises:
        ValueError: If nothing has this name, or a preset is only planned; the message says how to make it. Also if there is
            no such dtype.
        FileNotFoundError: If it is the path of a file or folder that is not there.
        keras_sphereface.errors.FileFormatError: If a file is damaged, changed or names code: none of it is run.
        HubError: If the Hub does not give the files.

    Example:
    >>> model = load_pretrained()
    >>> embeddings = model.predict(crops)
    """
    hub = _checked_arguments(name, dtype, revision=revision, token=token, cache_dir=cache_dir, endpoint=endpoint)
    model = _load(name, hub).model
    return model if dtype is None else with_dtype(model, dtype)


class Described(NamedTuple):
    """A model with what is said of it, which were loaded at once.

    Attributes:
        model: The `keras.Model`.
        preset: Its `Preset`, or `None` for what has no preset's name.
        path: The `preset.json` of its folder or repository; where there is none, a path of no file, or `None`.
    """

    model: keras.Model
    preset: "presets.Preset | None" = None
    path: pathlib.Path | None = None


def load_described(name: str | os.PathLike | None = None) -> Described:
    """Loads a model as `load_pretrained` does, with what its preset or its folder says of it."""
    return _load(name, _checked_arguments(name, None))


def _checked_arguments(name, dtype, **hub):
    """Refuses what cannot be meant, before anything is loaded; returns the Hub's options."""
    is_path = isinstance(name, os.PathLike) or (isinstance(name, str) and name.strip())
    if name is not None and not is_path:  # an empty name would be the folder in which the program runs
        raise _unknown_name(name)
    if dtype is not None:
        float_policy(dtype)
    return hub_arguments.checked_options(**hub)


def _load(name, hub):
    if isinstance(name, str) and name.startswith(HUB_SCHEME):
        return _load_from_hub(name[len(HUB_SCHEME) :], hub)
    if name is None or name in presets.names():
        preset = presets.default() if name is None else presets.get(name)
        return _load_preset(preset, hub)
    return _load_local(name, hub["revision"])


def _load_preset(preset, hub):
    if preset.status == "planned":
        raise ValueError(
            f"The preset {preset.name!r} is planned: nobody has published its weights yet. Make them with "
            f"`{preset.obtain}`, load that file by its path, and share it with keras_sphereface.push_to_hub(model, "
            "'organization/repository')"
        )
    if preset.status == "published":
        pinned = hub["revision"] in (None, preset.revision)
        hub = {**hub, "revision": hub["revision"] or preset.revision}
        return _load_from_hub(preset.hub_id, hub, {preset.file: preset.sha256} if pinned else None)._replace(
            preset=preset
        )
    _refuse_revision(hub["revision"], preset.name)
    return Described(_load_embedded(preset), preset)


def _load_embedded(preset):
    from keras_sphereface import backbones
    from keras_sphereface.embedder import build_embedder

    if not preset.weights_path.is_file():
        raise FileNotFoundError(f"{preset.weights_path} is missing. Install keras_sphereface again")
    model_folder.check_sha256(preset.weights_path, preset.sha256)
    arguments = {"dtype": "float32", **preset.arguments}  # the model's own, whatever Keras's global policy is
    embedder = build_embedder(backbones.get(preset.architecture, **arguments), name=preset.name)
    weights_file.read(embedder, preset.weights_path)
    return embedder


def _load_from_hub(repo_id, hub, sha256=None):
    folder = hub_files.download(repo_id, sha256=sha256, **hub)
    return Described(model_folder.read(folder, f"{HUB_SCHEME}{repo_id}"), path=folder / model_folder.PRESET)


def _load_local(name, revision):
    path = pathlib.Path(os.fspath(name))
    if _is_too_long(path):
        raise _unknown_name(name)
    if path.is_dir():
        _refuse_revision(revision, name)
        return Described(model_folder.read(path), path=path / model_folder.PRESET)
    if path.is_file() and path.suffix == ".keras":
        _refuse_revision(revision, name)
        return Described(model_folder.read_keras_file(str(path)))
    raise _no_model(name, path)


def _is_too_long(path):
    """Whether the system has no files of such long names: looking for them raises."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    except ValueError:  # a zero byte, or half a character: no file either, and looking for it does not raise
        return False
    return False


def _no_model(name, path):
    """The error for what stands for no model, by what it was meant to be: another kind of file, a path, or a name."""
    if path.is_file():
        advice = next((text for ending, text in OTHER_FILES.items() if path.name.endswith(ending)), "Give another file")
        return ValueError(f"{path}: expected a .keras file or a folder with a model, found another file. {advice}")
    text = os.fspath(name)
    is_repository = presets.REPO_ID.fullmatch(text) is not None
    hint = hub_arguments.name_hint(text)
    if hint and not isinstance(name, os.PathLike) and path.suffix not in FILE_ENDINGS:
        return _unknown_name(name, hint)
    if path.suffix in FILE_ENDINGS or isinstance(name, os.PathLike) or (os.sep in text and not is_repository):
        what = text if text.isprintable() else shown(text)
        return FileNotFoundError(
            f"{what}: there is no such file or folder. Expected a .keras file, a folder with a model, a preset's name or "
            f"'{HUB_SCHEME}organization/repository'. Check the path"
        )
    hint = (
        f" For a repository on the Hub: '{HUB_SCHEME}{text}'" if is_repository else did_you_mean(text, presets.names())
    )
    return _unknown_name(name, hint)


def _unknown_name(name, hint=""):
    return ValueError(
        f"Expected the name of a preset, '{HUB_SCHEME}organization/repository', a folder or a .keras file. "
        f"Received: name={shown(name)}. Known names: {', '.join(presets.names())}.{hint}"
    )


def _refuse_revision(revision, name):
    if revision is not None:
        raise ValueError(f"`revision` is for models on the Hub. Received: revision={revision!r} with {str(name)!r}")


@dataclasses.dataclass(frozen=True)
class Published:
    """What `push_to_hub` uploaded.

    Args:
        repo_id: `"organization/repository"`.
        revision: The commit, for `load_pretrained(..., revision=...)`.
        url: Address of the commit.
        file: Name of the weight file there.
        size: Its bytes.
        sha256: Its SHA-256.

    Example:
    >>> published = keras_sphereface.push_to_hub(model, "me/my-face-model", card)
    >>> same = keras_sphereface.load_pretrained(f"hf://{published.repo_id}", revision=published.revision)
    """

    repo_id: str
    revision: str
    url: str
    file: str
    size: int
    sha256: str


def push_to_hub(
    model: keras.Model,
    repo_id: str,
    card: model_card.Card | None = None,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
    endpoint: str | None = None,
) -> Published:
    """Uploads a model to the Hugging Face Hub in one commit: weights, configuration, checksums and card.

    The repository is made if absent. `keras.saving.load_model("hf://organization/repository")` reads it, without this
    package too if all layers have a counterpart in Keras, as those of all backbones here; the card says whether it does.
    If the upload fails, the repository stays as it was.

    Args:
        model: A `FaceClassifier`, a backbone or an embedder.
        repo_id: `"organization/repository"`.
        card: A `model_card.Card` with data, licence and measured metrics. Defaults to `None`: a card that says that
            nothing is known of them.
        private: Whether a new repository is private. Defaults to `False`.
        revision: Branch to commit to; made from `main` if absent. Defaults to `None`, `main`.
        token: Hub token with write access. Defaults to `None`: the one of the environment or of the login.
        message: Commit message. Defaults to `None`, one that names the package's version.
        endpoint: URL of another Hub. Defaults to `None`.

    Returns:
        A `Published` with the commit and the checksum: what a preset entry needs.

    Raises:
        ValueError: If the repository's name, the model or another argument is of the wrong kind.
        HubError: If the Hub refuses.

    Example:
    >>> card = keras_sphereface.model_card.Card(data="my own photos", license="mit")
    >>> published = push_to_hub(trainer, "me/my-face-model", card)
    """
    repo_id = checked_repo_id(repo_id)
    hub_arguments.checked_options(revision=revision, token=token, endpoint=endpoint)
    _check_push(card, private, revision, message)
    card = model_card.Card() if card is None else card
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        description = model_folder.write(model, folder, card.description_fields())
        (folder / model_card.FILE).write_text(model_card.render(card, repo_id, description), encoding="utf-8")
        names = (*model_folder.KERAS_FILES, model_folder.PRESET, model_card.FILE)
        commit = hub_files.upload(
            {name: folder / name for name in names},
            repo_id,
            private=private,
            revision=revision,
            token=token,
            message=message or f"Model by keras_sphereface {__version__}",
            endpoint=endpoint,
        )
        weights = folder / model_folder.WEIGHTS
        return Published(
            repo_id=repo_id,
            revision=commit.oid,
            url=commit.commit_url,
            file=weights.name,
            size=weights.stat().st_size,
            sha256=description["sha256"][weights.name],
        )


def checked_repo_id(repo_id: str) -> str:
    """The `organization/repository` of a repository's name, which may have `hf://` before it.

    Raises:
        ValueError: If it is none.
    """
    repo_id = repo_id.removeprefix(HUB_SCHEME) if isinstance(repo_id, str) else repo_id
    hub_arguments.check_repo_id(repo_id)
    return repo_id


def _check_push(card, private, revision, message):
    """Refuses arguments that cannot be meant, before the model is written."""
    if card is not None and not isinstance(card, model_card.Card):
        raise ValueError(f"card: expected a model_card.Card or None. Received: {shown(card)}. Use Card(**fields)")
    if not isinstance(private, bool):
        raise ValueError(f"private: expected True or False. Received: {shown(private)}")
    if revision is not None and presets.COMMIT.fullmatch(revision):
        raise ValueError(
            f"revision: expected a branch to commit to. Received: the commit {revision}. Give the branch's name"
        )
    if message is not None and not isinstance(message, str):
        raise ValueError(f"message: expected a text or None. Received: {shown(message)}")
