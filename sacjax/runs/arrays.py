"""Store trees of arrays in a folder on disk. Each process writes one file.

- `0.npz`, `1.npz`, ...: one uncompressed file for the shards of each process.
- `note.json`: the names and dtypes of the arrays, the SHA-256 of each file, and the caller's note.
  The first line is the SHA-256 of the other lines.

`write_part` writes into a temporary folder. `complete` syncs the temporary folder and then renames
it. Only complete folders have final names. `Stored` verifies every checksum before it reads an
array.
"""

import hashlib
import json
import os
import shutil
import struct
import sys
import zipfile
from collections import UserDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.runs.files import PART
from sacjax.types import is_key

Arrays = Mapping[str, Any]  # name -> array
_NOTE = "note.json"


def flatten(tree: Any) -> dict[str, Any]:
    """Return the leaves of the tree by name. PRNG keys become arrays of integers."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _to_numbers(x) for path, x in leaves}


def unflatten(like: Any, arrays: Arrays, place: Callable[[Any], Any] = lambda x: x) -> Any:
    """Build a tree from arrays that `flatten` returned.

    To save memory, the function processes one array at a time.

    Args:
      like: a tree of `jax.ShapeDtypeStruct`, which specifies the expected shapes and dtypes.
      arrays: the arrays by name.
      place: a function that is applied to each array.

    Returns:
      A tree with the structure of `like`. Its leaves are the results of `place`.

    Raises:
      ValueError: an array is missing, or its shape or dtype differs from `like`.
    """

    def read_leaf(path: Any, wanted: Any) -> Any:
        name, shape = jax.tree_util.keystr(path), jax.eval_shape(_to_numbers, wanted)
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        found = arrays[name]
        if (found.shape, found.dtype.kind) != (shape.shape, shape.dtype.kind):
            raise ValueError(
                f"{name} is {found.dtype}{list(found.shape)}, not {shape.dtype}{list(shape.shape)}"
            )
        found = found.astype(shape.dtype, copy=False)  # if jax_enable_x64 has changed
        if not is_key(wanted):
            return place(found)
        kinds = []  # only tracers reveal the kinds of the PRNG keys
        jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), wanted)
        return jax.random.wrap_key_data(place(found), impl=kinds[0])

    return jax.tree_util.tree_map_with_path(read_leaf, like)


def select(arrays: Arrays, prefix: str) -> dict[str, Any]:
    """Return the arrays whose names start with `prefix`. The prefix is removed from their names."""
    return {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}


def part_of(folder: Path) -> Path:
    """Return the path of the temporary folder that `complete` renames to `folder`."""
    return folder.with_name(PART + folder.name)


def make_room(folder: Path) -> None:
    """Create an empty temporary folder. The files of an interrupted write are deleted."""
    shutil.rmtree(part_of(folder), ignore_errors=True)
    part_of(folder).mkdir(parents=True)


def write_part(folder: Path, arrays: Arrays, rows: int = sys.maxsize) -> dict[str, str]:
    """Write this process's shards of the arrays to the temporary folder.

    The caller may donate the arrays after the call, because the function keeps no references
    to the arrays.

    Args:
      folder: the folder that `complete` creates later.
      arrays: JAX arrays and NumPy arrays by name. Each process writes its own shards of JAX arrays.
        NumPy arrays are equal in all processes, so only the first process writes NumPy arrays.
      rows: the number of rows of each JAX array to write. Later rows are padding.

    Returns:
      The dtype of each array by name.
    """
    pieces: dict[str, Any] = {}
    for number, x in enumerate(arrays.values()):
        for start, piece in _own_pieces(x, rows).items():
            pieces[f"{number}-{start}"] = piece
    process = jax.process_index()
    with (part_of(folder) / f"{process}.npz").open("wb") as file:
        np.savez(file, **pieces)
        if jax.process_count() > 1:  # `complete` cannot sync files on other machines
            file.flush()
            os.fsync(file.fileno())
    return {name: str(x.dtype) for name, x in arrays.items()}


def complete(folder: Path, dtypes: dict[str, str], note: dict[str, Any]) -> None:
    """Write note.json, sync all files to the disk, and rename the folder to its final name."""
    part, old = part_of(folder), folder.with_name(f"{PART}old-{folder.name}")
    files = {path.name: _sha256(path) for path in sorted(part.glob("*.npz"))}
    text = json.dumps({"note": note, "dtypes": dtypes, "files": files})
    (part / _NOTE).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    for path in (*part.iterdir(), part):
        _sync(path)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


class Stored(UserDict[str, Any]):
    """A dictionary of the arrays in a folder. Each access reads an array from the disk."""

    def __init__(self, folder: Path):
        """Verify every checksum. Raises OSError, ValueError or LookupError for a damaged file."""
        digest, _, text = (folder / _NOTE).read_text().partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError(f"{_NOTE} has changed")
        content = json.loads(text)
        self.note: dict[str, Any] = content["note"]
        self._dtypes: dict[str, str] = content["dtypes"]
        names = list(self._dtypes)
        # name -> first row of a piece -> the file of the piece, and the offset of the zip entry
        self.data: dict[str, dict[int, tuple[Path, int]]] = {name: {} for name in names}
        for path in (folder / name for name in content["files"]):
            if _sha256(path) != content["files"][path.name]:
                raise ValueError(f"{path.name} has changed")
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    number, start = map(int, entry.filename.removesuffix(".npy").split("-"))
                    self.data[names[number]][start] = path, entry.header_offset

    def __getitem__(self, name: str) -> np.ndarray:
        parts = [_read_entry(path, at) for _, (path, at) in sorted(self.data[name].items())]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return whole.view(np.dtype(self._dtypes[name]))  # NumPy reads bfloat16 as bytes


def _own_pieces(x: Any, rows: int) -> dict[int, np.ndarray]:
    """Return the pieces that this process writes. The key of a piece is its first row."""
    if isinstance(x, jax.Array) and x.size:
        shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
        return {at: np.asarray(data)[: rows - at] for at, data in shards.items() if at < rows}
    if isinstance(x, jax.Array):
        x = np.zeros(x.shape, x.dtype)[:rows]
    return {0: x} if jax.process_index() == 0 else {}


def _read_entry(path: Path, offset: int) -> np.ndarray:
    """Read the array whose zip entry starts at `offset` in an .npz file.

    The function does not check the CRC, because `Stored` has verified the file's SHA-256.
    """
    with path.open("rb") as file:
        file.seek(offset + 26)  # the lengths of two fields of the zip entry
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        return np.lib.format.read_array(file)


def _to_numbers(x: Any) -> Any:
    return jax.random.key_data(x) if is_key(x) else x


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Sync a file's content, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
