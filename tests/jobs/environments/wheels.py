"""Makes wheels."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    needs: str = "",
    size: int = 0,
    code: str = "",
    modules: Sequence[str] = (),
) -> Path:
    """Make a wheel of one package.

    Args:
        folder: Where.
        name: Name of the distribution.
        version: Its version.
        needs: A requirement of it, or "".
        size: Bytes of a file in it.
        code: More of its `__init__.py`.
        modules: Further modules in it, empty.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": f"version = {version!r}\n{code}",
        **{f"{module}/{one}.py": "" for one in modules},
        f"{module}/data": "0" * size,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel
