# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from cloister.sealed import bundle as bundle_module
from cloister.sealed.bundle import (
    BundleLimits,
    FileDigest,
    check_model_file,
    file_list,
    files_of,
    list_digest,
    read_bundle,
    write_bundle,
)
from cloister.sealed.errors import (
    BundleFormatError,
    BundleLimitError,
    DestinationError,
    FileNotAllowedError,
    SourceChangedError,
    UnsafeNameError,
)
from cloister.sealed.payload import PayloadReader, seal_stream

FILES = {"config.json": b"{}", "folder/model.safetensors": b"w" * 1000, "vocab.txt": b"a\nb\n"}


def pack(files: dict[str, bytes]) -> bytes:
    sink = BytesIO()
    write_bundle(files.items(), sink)
    return sink.getvalue()


def unpacked(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_of(folder)}


def test_a_bundle_makes_the_round_trip(tmp_path: Path) -> None:
    """The same names and contents come out, and both directions report the same digests."""
    sink = BytesIO()
    written = write_bundle(FILES.items(), sink)
    assert written == read_bundle(BytesIO(sink.getvalue()), tmp_path)
    assert unpacked(tmp_path) == FILES
    assert list(written) == file_list(tmp_path)


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    """Order, times, modes and origin of the files do not show."""
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
        os.utime(path, (1, len(data)))
    sink = BytesIO()
    write_bundle(reversed(files_of(tmp_path)), sink)
    assert pack(FILES) == sink.getvalue()


def test_any_tar_program_reads_a_bundle() -> None:
    """The bytes are a plain tar archive of regular files."""
    with tarfile.open(fileobj=BytesIO(pack(FILES))) as archive:
        members = archive.getmembers()
        shown = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert shown == FILES
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in members} == {
        (0, 0, 0, 0o644, "", tarfile.REGTYPE)
    }


def test_a_bundle_is_read_straight_from_a_payload(tmp_path: Path) -> None:
    """A sealed bundle unpacks through the random-access reader, without a temporary file."""
    sealed = BytesIO()
    seal_stream(BytesIO(pack(FILES)), sealed, b"k" * 32, b"")
    read_bundle(PayloadReader(sealed, b"k" * 32, b""), tmp_path)
    assert unpacked(tmp_path) == FILES


class Zeros:
    """A source of `size` zero bytes that says which sizes were asked for."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, count: int, /) -> bytes:
        data = bytes(min(count, self.left))
        self.left -= len(data)
        return data


def test_files_of_eight_gibibytes_have_a_pax_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A size that ustar cannot write stands in a pax record, which the reader accepts for such sizes only."""

    @contextmanager
    def opened(source: object) -> Iterator[tuple[Zeros, int]]:
        yield Zeros(5), 8**11

    sink = BytesIO()
    monkeypatch.setattr(bundle_module, "_opened", opened)
    with pytest.raises(SourceChangedError):
        write_bundle([("w.safetensors", b"")], sink)
    header = sink.getvalue()[:1536]
    with tarfile.open(fileobj=BytesIO(header + bytes(1024))) as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size) == ("w.safetensors", 8**11)
    with pytest.raises(BundleLimitError, match="8589934592 bytes"):
        read_bundle(BytesIO(header), tmp_path, BundleLimits(max_file_size=8**11 - 1))
    small = header[:512] + header[512:1024].replace(b"8589934592", b"0000000001") + header[1024:]
    with pytest.raises(BundleFormatError):
        read_bundle(BytesIO(small), tmp_path)


@pytest.mark.parametrize(
    "limits",
    [BundleLimits(max_files=2), BundleLimits(max_file_size=999), BundleLimits(max_total_size=1001)],
)
def test_limits_are_kept(limits: BundleLimits, tmp_path: Path) -> None:
    """One file, byte or total too many refuses the bundle and leaves nothing."""
    with pytest.raises(BundleLimitError):
        read_bundle(BytesIO(pack(FILES)), tmp_path, limits)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """An existing file stays as it was, and what was unpacked before it is removed."""
    (tmp_path / "vocab.txt").write_text("mine")
    with pytest.raises(DestinationError):
        read_bundle(BytesIO(pack(FILES)), tmp_path)
    assert unpacked(tmp_path) == {"vocab.txt": b"mine"}


def test_links_in_the_destination_are_not_followed(tmp_path: Path) -> None:
    """A planted link, to a file or to a folder, leads nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("config.json", "folder"):
        folder = tmp_path / f"for-{name}"
        folder.mkdir()
        (folder / name).symlink_to(outside / "new" if name == "config.json" else outside)
        with pytest.raises(DestinationError):
            read_bundle(BytesIO(pack(FILES)), folder)
    assert list(outside.iterdir()) == []


def test_a_missing_destination_is_refused(tmp_path: Path) -> None:
    """The folder must exist."""
    with pytest.raises(DestinationError):
        read_bundle(BytesIO(pack(FILES)), tmp_path / "missing")


def test_the_caller_may_refuse_files(tmp_path: Path) -> None:
    """A file outside the allow-list refuses the whole bundle."""
    with pytest.raises(FileNotAllowedError):
        read_bundle(BytesIO(pack(FILES | {"z.bin": b""})), tmp_path, allow=check_model_file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [["../x"], ["a", "a"], ["a/b/c"], ["/a"], [""], ["a b"], ["\u00e4"], ["x" * 100]])
def test_unsafe_names_are_not_written(names: list[str]) -> None:
    """A bundle that the reader would refuse is not made."""
    sink = BytesIO()
    with pytest.raises(UnsafeNameError):
        write_bundle([(name, b"") for name in names], sink)
    assert sink.getvalue() == b""


def test_a_file_that_grows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is longer than its header says makes no bundle."""

    @contextmanager
    def opened(source: object) -> Iterator[tuple[Zeros, int]]:
        yield Zeros(6), 5

    monkeypatch.setattr(bundle_module, "_opened", opened)
    with pytest.raises(SourceChangedError):
        write_bundle([("a", b"")], BytesIO())


def test_folders_are_listed_in_order_without_hidden_files(tmp_path: Path) -> None:
    """A list holds visible files of the folder and its sub-folders, with size and SHA-256."""
    for name in ("b.json", ".hidden", "sub/a.json", "sub/.x", ".cache/y"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    names = ["b.json", "sub/a.json"]
    expected = [FileDigest(n, len(n), hashlib.sha256(n.encode()).hexdigest()) for n in names]
    assert expected == file_list(tmp_path)


def test_folders_may_hold_links_to_files_only(tmp_path: Path) -> None:
    """Links to files are followed as model caches need it; links to folders and deeper folders are refused."""
    target = tmp_path / "blobs"
    target.mkdir()
    (target / "blob").write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").symlink_to(target / "blob")
    assert unpacked(model) == {"config.json": b"{}"}
    (model / "linked").symlink_to(target)
    with pytest.raises(UnsafeNameError):
        files_of(model)
    (model / "linked").unlink()
    (model / "a/b").mkdir(parents=True)
    with pytest.raises(UnsafeNameError):
        files_of(model)


def test_the_list_digest_does_not_depend_on_the_order() -> None:
    """A set of files has one digest: SHA-256 of its canonical JSON."""
    a, b = FileDigest("a", 1, "0" * 64), FileDigest("b", 2, "1" * 64)
    text = f'[{{"name":"a","sha256":"{"0" * 64}","size":1}},{{"name":"b","sha256":"{"1" * 64}","size":2}}]'
    assert list_digest([a, b]) == list_digest([b, a]) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00002.safetensors",
        "config.json",
        "1_Pooling/config.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "LICENSE",
        "LICENSE.txt",
        "NOTICE",
        "README.md",
    ],
)
def test_files_of_a_model_are_allowed(name: str) -> None:
    """Weights as safetensors, JSON, tokenizer files, licence and card belong to a model."""
    check_model_file(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pytorch_model.bin", "safetensors"),
        ("optimizer.PT", "safetensors"),
        ("modeling_evil.py", "code"),
        ("notes.txt", "remove"),
        ("run.sh", "remove"),
        ("folder/weights.pkl", "safetensors"),
        ("model.safetensors.exe", "remove"),
    ],
)
def test_other_files_are_refused_with_advice(name: str, hint: str) -> None:
    """The message names the file and says what to do."""
    with pytest.raises(FileNotAllowedError, match=hint) as caught:
        check_model_file(name)
    assert name in str(caught.value)
