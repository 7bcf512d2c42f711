"""Names for jobs that were given none."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timezone
from pathlib import Path

_STEM_CHARACTERS = 38


def generate_job_name(entry_point: str) -> str:
    """Return `<script's name>-<UTC time to the millisecond>-<4 random hex digits>`, a valid job name."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(entry_point).stem).strip("-")[:_STEM_CHARACTERS].strip("-")
    now = datetime.now(timezone.utc)
    return f"{stem or 'job'}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{secrets.token_hex(2)}"
