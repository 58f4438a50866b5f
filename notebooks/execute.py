"""Execute the notebooks.

python notebooks/execute.py                  tests them with tiny parameters, discards the outputs
python notebooks/execute.py --save [NAME]    uses their own parameters, stores the outputs

The tiny run inserts a cell with the values of `TINY` after the cell tagged "parameters". If a cell
fails, the script prints the traceback and exits with 1.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
TINY = {
    "quickstart": {"num_seeds": 2, "total_steps": 1_500, "gif_member": 0, "gif_frames": 5},
    "many_seeds_and_sweeps": {
        "num_seeds": 2,
        "sweep_steps": 1_000,
        "taus": [0.01, 0.05],
        "critic_lrs": [1e-3, 1e-2],
        "gravity_steps": 1_000,
        "gravities": {"Moon": 1.6, "Earth": 9.8},
    },
    "inside_the_update": {
        "num_envs": 4,
        "num_steps": 210,
        "num_updates": 20,
        "num_samples": 100,
        "hidden": (8, 8),
    },
    "locomotion": {
        "brax_env": "brax/inverted_pendulum?backend=generalized&limit=20",
        "gymnasium_env": "gymnasium/InvertedPendulum-v5?max_episode_steps=20",
        "num_seeds": 2,
        "total_steps": 2_000,
        "hidden": (8,),
        "gif_frames": 5,
    },
}
MAX_BYTES = 1_500_000  # limit for a saved notebook
TIMEOUT = 900  # seconds for one cell


def main() -> int:
    """Execute the named notebooks. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", action="store_true", help="full parameters, store the outputs")
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(TINY)} (default: all)")
    args = parser.parse_args()
    names = args.names or list(TINY)
    if unknown := set(names) - set(TINY):
        parser.error(f"unknown notebooks {', '.join(sorted(unknown))}: use {', '.join(TINY)}")

    os.environ.pop("MPLBACKEND", None)  # plots go into the notebook
    with tempfile.TemporaryDirectory() as folder:
        # The kernel must use this interpreter, whatever kernels the machine has.
        write_kernel_spec(str(Path(folder) / "kernels" / "python3"))
        os.environ["JUPYTER_PATH"] = folder
        if args.save:
            failed = [asyncio.run(execute(name, save=True)) for name in names]
        else:
            # Most of the time is compilation: the programs run for a second.
            os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
            failed = asyncio.run(execute_together(names))
    return int(any(failed))


async def execute_together(names: list[str]) -> list[bool]:
    """Execute several notebooks at once, each in its own kernel."""
    return await asyncio.gather(*(execute(name, save=False) for name in names))


async def execute(name: str, save: bool) -> bool:
    """Execute one notebook, and store it if `save`. Return whether it failed."""
    path = HERE / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    if not save:
        inject(notebook, TINY[name])
    begin = time.perf_counter()
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(HERE)}},
    )
    try:
        await client.async_execute()
    except CellExecutionError as error:
        print(f"{path.name}: failed\n{error}", file=sys.stderr, flush=True)
        return True
    print(f"{path.name}: {time.perf_counter() - begin:.0f} s", flush=True)
    return save and not store(notebook, path)


def inject(notebook: nbformat.NotebookNode, values: dict) -> None:
    """Insert a cell that assigns `values` after the cell tagged "parameters"."""
    tagged = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        raise ValueError(f'{len(tagged)} cells are tagged "parameters": tag exactly one')
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    if absent := [name for name in values if f"{name} =" not in notebook.cells[tagged[0]].source]:
        raise ValueError(f"{', '.join(absent)} not in the parameters cell: update TINY")
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(source))


def store(notebook: nbformat.NotebookNode, path: Path) -> bool:
    """Write the notebook without traces of this machine.

    If its outputs are not fit for that, print the reason and return False.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.get("name") == "stderr":
            print(f"{path.name}: a cell wrote to stderr:\n{output.text}", file=sys.stderr)
            return False
    text = nbformat.writes(notebook)
    private = [tempfile.gettempdir(), str(HERE.resolve().parent), sys.prefix, str(Path.home())]
    if found := [place for place in private if any(place in text_of(output) for output in outputs)]:
        print(f"{path.name}: its outputs contain {', '.join(found)}", file=sys.stderr)
        return False
    if len(text) > MAX_BYTES:
        print(f"{path.name}: {len(text):,} bytes, more than {MAX_BYTES:,}", file=sys.stderr)
        return False
    path.write_text(text + "\n")
    return True


def text_of(output: nbformat.NotebookNode) -> str:
    """Return the text of an output, without its images."""
    data = {kind: value for kind, value in output.get("data", {}).items() if "image" not in kind}
    return f"{output.get('text', '')}{data}"


if __name__ == "__main__":
    sys.exit(main())
