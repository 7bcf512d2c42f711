"""What an environment holds: a Python, and pins of packages; and the digest of both, by which it is kept."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smkit.jobs.containers import image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smkit.jobs.containers import Python
    from smkit.jobs.environments.names import EnvironmentName

#: Of how an environment lies on disk. A change makes every environment another one.
LAYOUT = 1
#: What scripts use, and with it whatever these need. Then what installs a requirements.txt: setuptools is also the
#: distutils of Python 3.12.
_CORE = ("boto3", "joblib", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "pip", "setuptools", "wheel")


@dataclass(frozen=True)
class Contents:
    """What is installed.

    Args:
        python: The Python, such as `(3, 9)`.
        pins: Normalised distribution name -> version: what may be installed, and in which version. What a package
            needs beyond these is free.
        wanted: Which of the pins are installed with what they need; None: exactly all of the pins, of which some may
            have to be compiled, and whether they fit together is not asked.
    """

    python: Python
    pins: Mapping[str, str] = field(repr=False)
    wanted: tuple[str, ...] | None = None

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def python_version(self) -> str:
        """The Python as text: `3.9`."""
        return f"{self.python[0]}.{self.python[1]}"

    @property
    def digest(self) -> str:
        """SHA-256 of all of this, of the platform and of the layout, in hexadecimal."""
        # The platform: a home folder may be shared by machines of several kinds.
        platform = [sys.platform, os.uname().machine]
        parts = [LAYOUT, platform, self.python_version, sorted(self.pins.items()), self.wanted]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the installer is asked for, such as `numpy==1.24.1`."""
        return tuple(f"{name}=={self.pins[name]}" for name in (self.wanted or self.pins))

    @property
    def constraints(self) -> str:
        """The pins as the text of a constraints file."""
        return "".join(f"{name}=={version}\n" for name, version in sorted(self.pins.items()))

    def differences(self, installed: Mapping[str, str]) -> list[str]:
        """Say what is not as it was asked for; empty where all is.

        Args:
            installed: Normalised distribution name -> version.
        """
        missing = [f"{name} is missing" for name in (self.wanted or self.pins) if name not in installed]
        return missing + [
            f"{name} is {version}, not {self.pins[name]}"
            for name, version in installed.items()
            if self.pins.get(name, version) != version
        ]


def contents_of(name: EnvironmentName) -> Contents:
    """Return what the environment of an image holds.

    Raises:
        ConfigError: The content of this image is not known.
    """
    source = image(name.framework_version)
    wanted = None if name.toolkits else tuple(package for package in _CORE if package in source.packages)
    return Contents(source.python, source.packages, wanted)
