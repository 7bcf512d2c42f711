"""The one place that knows skops: models that are loaded without running code from the file."""

from __future__ import annotations

import importlib
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from smkit.errors import ConfigError, MissingExtraError, ModelError, UntrustedTypes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def dump_skops(estimator: Any, path: Path) -> None:
    """Write an estimator.

    Raises:
        MissingExtraError: skops is not installed.
        ModelError: skops cannot write such an estimator.
    """
    try:
        _skops_io().dump(estimator, path)
    except TypeError as error:  # skops' sign for a type that it has no format for
        raise ModelError(f"skops cannot write this {type(estimator).__name__}: {error}; use format='joblib'") from error


def load_skops(stream: BinaryIO, where: str, trusted: Sequence[str | type]) -> Any:
    """Load an estimator from a stream that can seek.

    Args:
        stream: The file.
        where: Its name, for messages.
        trusted: Types that may be made beside those that skops trusts by itself, or their full names.

    Raises:
        ConfigError: `trusted` is not a list of types.
        MissingExtraError: skops is not installed.
        ModelError: It is no file of skops, or of another version of skops.
        UntrustedTypes: It holds types that nobody trusts.
    """
    if not isinstance(trusted, (list, tuple, set, frozenset)) or not all(
        isinstance(item, (str, type)) for item in trusted
    ):
        raise ConfigError(f"trusted={trusted!r} is not a list of types or of their full names")
    known = [item if isinstance(item, str) else f"{item.__module__}.{item.__qualname__}" for item in trusted]
    skops_io = _skops_io()
    try:
        # It takes a stream too, though its signature names paths alone.
        wanted: list[str] = skops_io.get_untrusted_types(file=stream)
        untrusted = [name for name in wanted if name not in known]
        if untrusted:
            raise UntrustedTypes(
                f"{where} holds types that are not trusted: {', '.join(untrusted)}. Loading makes objects of them: if "
                f"you know them and trust who published it, load with trusted={[*known, *untrusted]!r}",
                types=tuple(untrusted),
            )
        stream.seek(0)
        return skops_io.load(stream, trusted=known)
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        raise ModelError(f"{where} is not a file that this skops can load: {error}") from error
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{where} cannot be loaded here: {error}; its classes must be importable: install their package, or import "
            f"the training code's module, under the name that it had in training"
        ) from error


def _skops_io() -> Any:
    # By name: skops is published without type information.
    try:
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise MissingExtraError("models in the format of skops need skops: run `pip install 'smkit[skops]'`") from error
