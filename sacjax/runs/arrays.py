"""Trees of arrays on disk: a folder with one .npz per process and a note of their checksums.

    0.npz, 1.npz ...   what the devices of each process hold of the arrays, not compressed
    note.json          the names and dtypes of the arrays, the SHA-256 of each file, a note;
                       its first line is the SHA-256 of the rest

`write_part` writes a folder beside its place, and `complete` renames it once it is on the disk. So
a folder under its own name is whole. `Stored` checks every checksum before it reads anything.
"""

import hashlib
import json
import os
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.runs.files import PART
from sacjax.types import is_key

Arrays = Mapping[str, Any]  # name -> array
_NOTE = "note.json"


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by name, PRNG keys as the numbers in them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _numbers(x) for path, x in leaves}


def unflatten(like: Any, arrays: Arrays, place: Callable[[Any], Any] = lambda x: x) -> Any:
    """Inverse of `flatten`: each leaf is read, checked and placed before the next one is read.

    Args:
      like: a tree of `jax.ShapeDtypeStruct`.
      arrays: the arrays by name.
      place: what each array becomes.

    Raises:
      ValueError: an array is missing, or has another shape or dtype.
    """

    def leaf(path: Any, wanted: Any) -> Any:
        name, shape = jax.tree_util.keystr(path), jax.eval_shape(_numbers, wanted)
        if name not in arrays:
            raise ValueError(f"it has no {name}")
        found = arrays[name]
        if (found.shape, found.dtype.kind) != (shape.shape, shape.dtype.kind):
            raise ValueError(
                f"{name} is {found.dtype}{list(found.shape)}, not {shape.dtype}{list(shape.shape)}"
            )
        found = found.astype(shape.dtype, copy=False)  # another size, where x64 has changed
        if not is_key(wanted):
            return place(found)
        kinds = []  # a shape does not tell the kind of its keys, a tracer of that shape does
        jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), wanted)
        return jax.random.wrap_key_data(place(found), impl=kinds[0])

    return jax.tree_util.tree_map_with_path(leaf, like)


def part_of(folder: Path) -> Path:
    """Where `folder` is written before it is whole."""
    return folder.with_name(PART + folder.name)


def make_room(folder: Path) -> None:
    """An empty folder for the parts of `folder`, in place of what an interrupted write left."""
    shutil.rmtree(part_of(folder), ignore_errors=True)
    part_of(folder).mkdir(parents=True)


def write_part(folder: Path, arrays: Arrays, rows: int = sys.maxsize) -> dict[str, str]:
    """Write what this process holds of the arrays; return their dtypes by name.

    Nothing refers to the arrays afterwards, so their buffers can be donated. NumPy arrays are the
    same in every process: the first one writes them. `rows`: as many of JAX's arrays.
    """
    pieces: dict[str, Any] = {}
    for number, x in enumerate(arrays.values()):
        for start, piece in _pieces(x, rows).items():
            pieces[f"{number}-{start}"] = piece
    process = jax.process_index()
    with (part_of(folder) / f"{process}.npz").open("wb") as file:
        np.savez(file, **pieces)
        if jax.process_count() > 1:  # `complete` can only force what its own machine has written
            file.flush()
            os.fsync(file.fileno())
    return {name: str(x.dtype) for name, x in arrays.items()}


def complete(folder: Path, dtypes: dict[str, str], note: dict[str, Any]) -> None:
    """Write the note, force all of it to the disk, and rename it into place."""
    part, old = part_of(folder), folder.with_name(f"{PART}old-{folder.name}")
    files = {path.name: _sha256(path) for path in sorted(part.glob("*.npz"))}
    text = json.dumps({"note": note, "dtypes": dtypes, "files": files})
    (part / _NOTE).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    for path in (*part.iterdir(), part):
        _to_disk(path)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    _to_disk(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


class Stored(Mapping[str, np.ndarray]):
    """The arrays in a folder by name, each read from the disk when it is asked for."""

    def __init__(self, folder: Path):
        """Check every file. Raises OSError, ValueError or LookupError where one is damaged."""
        digest, _, text = (folder / _NOTE).read_text().partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError(f"{_NOTE} has changed")
        content = json.loads(text)
        for name, wanted in content["files"].items():
            if _sha256(folder / name) != wanted:
                raise ValueError(f"{name} has changed")
        self.note: dict[str, Any] = content["note"]
        self._dtypes, self._files = content["dtypes"], [folder / x for x in content["files"]]

    def __getitem__(self, name: str) -> np.ndarray:
        number, pieces = list(self._dtypes).index(name), {}
        for path in self._files:
            with zipfile.ZipFile(path) as archive, path.open("rb") as file:
                for entry in archive.infolist():
                    which, start = map(int, entry.filename.removesuffix(".npy").split("-"))
                    if which == number:
                        pieces[start] = _read_entry(file, entry)
        parts = [pieces[start] for start in sorted(pieces)]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return whole.view(np.dtype(self._dtypes[name]))  # bfloat16, say, is bytes to NumPy

    def __contains__(self, name: object) -> bool:
        return name in self._dtypes

    def __iter__(self) -> Iterator[str]:
        return iter(self._dtypes)

    def __len__(self) -> int:
        return len(self._dtypes)


def _pieces(x: Any, rows: int) -> dict[int, np.ndarray]:
    """What this process holds of an array: the row that each piece begins with, and the piece."""
    if isinstance(x, jax.Array) and x.size:
        shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
        return {at: np.asarray(data)[: rows - at] for at, data in shards.items() if at < rows}
    if isinstance(x, jax.Array):
        x = np.zeros(x.shape, x.dtype)[:rows]
    return {0: x} if jax.process_index() == 0 else {}


def _read_entry(file: Any, entry: zipfile.ZipInfo) -> np.ndarray:
    """An array of an .npz, straight from the file: its SHA-256 was checked, so zip's CRC is not."""
    file.seek(entry.header_offset + 26)  # where a zip's local header has the lengths of two fields
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
    return np.lib.format.read_array(file)


def _numbers(x: Any) -> Any:
    return jax.random.key_data(x) if is_key(x) else x


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
