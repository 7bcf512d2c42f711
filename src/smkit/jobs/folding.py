"""Leaves out of a log that is shown what the container says of itself before the script starts."""

from __future__ import annotations

import re

#: The toolkit logs one record: this line, "Training Env:" with some hundred lines, the command.
#: https://github.com/aws/sagemaker-training-toolkit, src/sagemaker_training/logging_config.py, log_script_invocation
_HEAD = re.compile(r"\S+ \S+ sagemaker-training-toolkit +INFO +Invoking user script")
_FIRST = "Training Env:"
_AFTER = "Invoking script with the following command:"
#: What is longer is no environment, or its end was never logged: then all of it is shown.
_MOST_CHARACTERS = 1 << 20


class ContainerFold:
    """Folds the toolkit's record of the job's environment into one line; everything else passes unchanged.

    A record whose end does not come is shown whole. Feed it the text as it comes, in pieces of any size.
    """

    def __init__(self) -> None:
        self._line = ""
        self._held: list[str] | None = None
        self._held_characters = 0

    def feed(self, text: str) -> str:
        """Return what is to be shown of the next piece, and of what was held back before."""
        shown: list[str] = []
        # Not splitlines: a progress bar's carriage returns stay inside their line.
        for piece in re.findall(r"[^\n]*\n|[^\n]+", text):
            self._line += piece
            is_whole = self._line.endswith("\n")
            if self._held is None:
                shown.append(piece)
                if is_whole and _HEAD.fullmatch(self._line.strip()):
                    self._held, self._held_characters = [], 0
            elif is_whole:
                shown.append(self._hold(self._held, self._line))
            if is_whole:
                self._line = ""
        return "".join(shown)

    def close(self) -> str:
        """Return what was held back and belongs to no record with an end."""
        if self._held is None:
            return ""
        text = "".join(self._held) + self._line
        self._held, self._line = None, ""
        return text

    def _hold(self, held: list[str], line: str) -> str:
        """Take a whole line while it is not decided what becomes of it; return what is to be shown now."""
        told = line.strip()
        starts = any(kept.strip() for kept in held)
        if starts and told == _AFTER:
            self._held = None
            return f"[{len(held)} lines about the container are left out here; job.logs() has them]\n{line}"
        held.append(line)
        self._held_characters += len(line)
        if (not starts and told not in {"", _FIRST}) or self._held_characters > _MOST_CHARACTERS:
            self._held = None
            return "".join(held)
        return ""
