# SPDX-License-Identifier: Apache-2.0
"""Lists of files with their digests, and which files a model may consist of.

A model is named by the digest of its file list: SHA-256 of the canonical JSON of
[{"name", "sha256", "size"}, ...] in ascending order of names.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cloister.evidence.canonical import canonical_bytes, sha256_hex
from cloister.sealed.errors import FileNotAllowedError, UnsafeNameError

MODEL_FILES = (
    "*.safetensors",
    "*.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.txt",
    "special_tokens.txt",
    "*.model",
    "chat_template.jinja",
    "LICENSE*",
    "NOTICE",
    "NOTICE.txt",
    "README.md",
)
"""Patterns of the last part of a name: weights as safetensors, configuration, tokenizer, licence, card."""

REPORT_FILES = ("report.html", "report.json")
"""The files of a report bundle: these and no others."""
PREDICTIONS_FILE = "predictions.jsonl"
"""The one file of the bundle that an inference job ends with."""

_PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_HINTS = {
    **dict.fromkeys(_PICKLE, "it can run code when it is loaded; convert the weights to safetensors and remove it"),
    ".py": "a model may not bring code; remove it, and use an architecture that transformers ships",
}


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of a folder or bundle: name relative to it, bytes, SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


def check_model_file(name: str) -> None:
    """Raise FileNotAllowedError, with what to do, unless a model may contain a file of this name."""
    last = name.rpartition("/")[2]
    if any(fnmatchcase(last, pattern) for pattern in MODEL_FILES):
        return
    suffix = os.path.splitext(last)[1].lower()  # noqa: PTH122 - the name is of a bundle, not of this file system
    hint = _HINTS.get(suffix, "it is none of the files that a model consists of; remove it from the folder")
    raise FileNotAllowedError(f"model file {name}: {hint}")


def check_report_file(name: str) -> None:
    """Raise FileNotAllowedError unless a report consists of a file of this name."""
    if name not in REPORT_FILES:
        raise FileNotAllowedError(f"a report consists of {' and '.join(REPORT_FILES)} and of nothing else")


def check_predictions_file(name: str) -> None:
    """Raise FileNotAllowedError unless it is the file of an inference job's report."""
    if name != PREDICTIONS_FILE:
        raise FileNotAllowedError(f"a report of inference consists of {PREDICTIONS_FILE} and of nothing else")


def files_of(folder: str | os.PathLike[str], allow: Callable[[str], None] | None = None) -> list[tuple[str, Path]]:
    """Names and paths of the files in `folder` and its direct sub-folders, in ascending order of names.

    Names that begin with a dot are left out (tools keep caches there).
    Links to files are followed, as model caches consist of them; links to folders are refused.
    `allow(name)` may refuse a file by raising. Raises UnsafeNameError for what is neither file nor folder.
    """
    root = Path(folder)
    found: list[tuple[str, Path]] = []
    for path in _visible(root):
        if path.is_dir() and not path.is_symlink():
            found += [(f"{path.name}/{inner.name}", inner) for inner in _visible(path)]
        else:
            found.append((path.name, path))
    for name, path in found:
        if not path.is_file():
            raise UnsafeNameError(f"folder: {name} is not a regular file at most one folder deep; remove it")
        if allow is not None:
            allow(name)
    return sorted(found)


def file_list(folder: str | os.PathLike[str], allow: Callable[[str], None] | None = None) -> list[FileDigest]:
    """The files of `files_of` with sizes and digests."""
    return [_digest(name, path) for name, path in files_of(folder, allow)]


def list_digest(files: Iterable[FileDigest]) -> str:
    """The digest that names a set of files: 64 hexadecimal digits, independent of the order given."""
    ordered = sorted(files, key=lambda file: file.name)
    return sha256_hex(canonical_bytes([{"name": f.name, "sha256": f.sha256, "size": f.size} for f in ordered]))


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _digest(name: str, path: Path) -> FileDigest:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(name, file.tell(), sha256)
