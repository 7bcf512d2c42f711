"""Parity environments: the Python and the packages of an AWS scikit-learn image, on this machine, without Docker.

`names` says which there can be, `contents` what one holds (from the pin lists of `jobs.containers`) and its digest.
`environment` is the value: where it lies, what is known of it. `interpreters` finds the Python, `uv` the tool;
`programs` asks either something. `index` knows where packages come from, `installers` installs; `bytecode` follows.
`building` brings these together: once, under `locking`, ended by the `record` that makes it count.

    environment = ensure_built(locate("1.2-1"))
    with hold(environment) as lock:
        subprocess.Popen([environment.python, "train.py"], pass_fds=[lock])
"""

from __future__ import annotations

from smkit.jobs.environments.building import ensure_built, folders_of, hold, remove, remove_all
from smkit.jobs.environments.environment import Environment, describe, environments_folder, installed, locate
from smkit.jobs.environments.interpreters import install_command, search_interpreter
from smkit.jobs.environments.names import HOST, EnvironmentName, known_names, parse_environment
from smkit.jobs.environments.record import EnvironmentFacts

__all__ = [
    "HOST",
    "Environment",
    "EnvironmentFacts",
    "EnvironmentName",
    "describe",
    "ensure_built",
    "environments_folder",
    "folders_of",
    "hold",
    "install_command",
    "installed",
    "known_names",
    "locate",
    "parse_environment",
    "remove",
    "remove_all",
    "search_interpreter",
]
