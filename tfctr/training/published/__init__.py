"""Experiment files of published runs, by name; a new one is one file. It needs no TensorFlow."""

from pathlib import Path

_DIRECTORY = Path(__file__).parent


def published_experiments() -> tuple[str, ...]:
    """The names of the published runs whose experiment files come with the package."""
    return tuple(sorted(path.stem for path in _DIRECTORY.glob("*.yaml")))


def published_path(name: str) -> Path:
    """The experiment file of a published run."""
    return _DIRECTORY / f"{name}.yaml"


def note_on(name: str) -> str:
    """What the file of a published run says first: whose run it is, and what the feature file must say."""
    lines = published_path(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
