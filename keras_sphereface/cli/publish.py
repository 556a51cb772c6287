"""Push a model with its card to the Hugging Face Hub, in one commit.

The card's facts come from a JSON file, e.g. {"data": "2,000 photos of 60 members", "license": "mit"}:

  keras-sphereface publish model.keras me/my-face-model --card card.json

Texts are name, description, data, license, preprocessing, intended_use, limits and speed; lists are metrics, each with name,
dataset, value, unit and command (the one that measured it), and thresholds, each with far, threshold (a cosine) and perhaps
tar (percent).

A preset, a model folder and a repository bring their card and their thresholds along; --card overrides single fields.
"""

import argparse
import dataclasses
import json
import pathlib

from keras_sphereface.cli import UsageError, options
from keras_sphereface.errors import did_you_mean, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `publish`."""
    parser.add_argument("model", help="a .keras file, a model folder, a preset's name or hf://org/repo")
    parser.add_argument("repo_id", help="organization/repository; made if absent")
    parser.add_argument("--card", type=pathlib.Path, help="JSON file with fields of the card")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch to commit to (default: main)")
    parser.add_argument("--message", help="commit message")
    parser.add_argument("--dry-run", type=pathlib.Path, metavar="FOLDER", help="write the files here; upload nothing")
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `publish`; the Hub token comes from the environment (HF_TOKEN) or the login."""
    from keras_sphereface import hub, model_card, model_folder

    try:
        repo_id = hub.checked_repo_id(args.repo_id)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if args.dry_run:
        _check_folder(args.dry_run)
    described = hub.load_described(args.model)
    model, card = described.model, _card(described, args.card)
    if args.dry_run:
        description = model_folder.write(model, args.dry_run, card.description_fields())
        text = model_card.render(card, repo_id, description)
        (args.dry_run / model_card.FILE).write_text(text, encoding="utf-8")
        options.show(args, {"folder": str(args.dry_run), **description}, f"wrote {args.dry_run}")
        return
    published = hub.push_to_hub(
        model, repo_id, card, private=args.private, revision=args.revision, message=args.message
    )
    text = (
        f"published hf://{published.repo_id} at {published.revision}\n{published.url}\n"
        f"{published.file}: {published.size:,} bytes, sha256 {published.sha256}"
    )
    options.show(args, dataclasses.asdict(published), text)


def _check_folder(folder):
    """Refuses a folder of somebody else's files, whose README.md would be lost."""
    from keras_sphereface import model_folder

    if folder.is_dir() and any(folder.iterdir()) and not (folder / model_folder.PRESET).is_file():
        raise ValueError(f"--dry-run must be a new folder, or one with a model. Received: {folder}, with other files")


def _card(described, path):
    """The card that the model has, with the fields of a JSON file instead of its own."""
    from keras_sphereface import model_card

    if described.preset is not None:
        card = model_card.from_preset(described.preset)
    elif described.path is not None:
        card = model_card.from_description(described.path)
    else:
        card = model_card.Card()
    if path is None:
        return card
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        _check_fields(fields, [field.name for field in dataclasses.fields(card)])
        return dataclasses.replace(card, **fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the fields of a model card ({error}). `keras-sphereface publish --help` explains them"
        ) from error


def _check_fields(fields, known):
    if not isinstance(fields, dict):
        raise ValueError(f"expected a dictionary. Received: {shown(fields)}")
    for name in fields:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"unknown field. Received: {shown(name)}. Known: {', '.join(known)}.{hint}")
