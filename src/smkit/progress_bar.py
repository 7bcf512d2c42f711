"""tqdm's bar, in a notebook as in a terminal."""

import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm shows a plain bar, and would say so in red at the first one.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
