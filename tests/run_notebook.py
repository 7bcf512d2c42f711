"""Run a notebook with this Python as its kernel, and write it with its outputs.

    python run_notebook.py NOTEBOOK FOLDER OUTPUT

A process of its own: what Jupyter's libraries leave open ends with it. Jupyter's folders are those of the environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

KERNEL = "this-python"


async def run(client: NotebookClient, kernel: AsyncKernelManager) -> None:
    try:
        await client.async_execute()
    finally:
        await kernel.shutdown_kernel(now=True)  # the client ends only a kernel that it made itself


def main(notebook: Path, folder: Path, output: Path) -> None:
    # A short path: that of a Unix socket may have 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory(prefix="nb-", dir="/tmp") as scratch:
        spec = Path(scratch, "kernels", KERNEL, "kernel.json")
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}), encoding="utf-8")
        # Not TCP: a free port that one test found may be taken by another before its kernel listens there.
        kernel = AsyncKernelManager(
            kernel_name=KERNEL,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent.parent)]),
            transport="ipc",
            ip=str(Path(scratch, "kernel")),
        )
        document = nbformat.read(notebook, as_version=4)
        client = NotebookClient(document, km=kernel, timeout=300, resources={"metadata": {"path": str(folder)}})
        asyncio.run(run(client, kernel))
    nbformat.write(document, output)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
