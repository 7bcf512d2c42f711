"""`python -m smkit`: the `smkit` command."""

from __future__ import annotations

from smkit.cli import main

if __name__ == "__main__":
    main()
