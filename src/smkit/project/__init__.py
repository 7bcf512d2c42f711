"""A new project's folder: `smkit init`, and `create` in Python.

`creating` decides which files there are to be and which are the user's own, `rendering` makes them of their templates,
and `placing` puts them into the folder, all or none.
"""

from __future__ import annotations

from smkit.project.creating import CreatedProject, create
from smkit.project.rendering import SOURCES

__all__ = ["SOURCES", "CreatedProject", "create"]
