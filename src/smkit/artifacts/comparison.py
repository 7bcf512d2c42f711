"""Two versions side by side, for a terminal and for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smkit.display import aligned, shortened, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from smkit.artifacts.version import ModelVersion

_WIDEST = 48
#: How much of the common beginning stands before the first difference of two long values.
_CONTEXT = 8
_SECTIONS = ("metrics", "hyperparameters", "data", "code", "environment", "signature", "published")


@dataclass(frozen=True)
class Difference:
    """One line of a comparison.

    Attributes:
        section: `metrics`, `hyperparameters`, `data`, `code`, `environment`, `signature` or `published`.
        name: What is compared.
        left: The first version's value; None where it has none.
        right: The second version's value; None where it has none.
    """

    section: str
    name: str
    left: Any
    right: Any

    @property
    def is_same(self) -> bool:
        """Whether both have the same value. As in JSON, a truth value is no number."""
        return isinstance(self.left, bool) == isinstance(self.right, bool) and bool(self.left == self.right)

    @property
    def change(self) -> float | None:
        """The second number less the first; None where the two are not numbers."""
        numbers = [
            value
            for value in (self.left, self.right)
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        return numbers[1] - numbers[0] if len(numbers) == 2 else None

    def _cells(self) -> tuple[str, str, str]:
        left, right = shown(self.left), shown(self.right)
        if not self.is_same and shortened(left, _WIDEST) == shortened(right, _WIDEST):
            start = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
            if start is None and left == right:  # equal to six digits
                left, right = repr(self.left), repr(self.right)
            else:
                cut = max(0, (min(len(left), len(right)) if start is None else start) - _CONTEXT)
                left, right = f"…{left[cut:]}", f"…{right[cut:]}"
        return shortened(left, _WIDEST), shortened(right, _WIDEST), self._shown_change()

    def _shown_change(self) -> str:
        if not self.change:
            return ""
        percent = f" ({self.change / abs(self.left):+.1%})" if self.section == "metrics" and self.left else ""
        return f"{self.change:+.4g}{percent}"


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side; printed, it is a table, and in a notebook an HTML table.

    Attributes:
        left: The first version's reference.
        right: The second version's reference.
        lines: Everything that either of them has, in the order of the sections.
    """

    left: str
    right: str
    lines: tuple[Difference, ...]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The lines in which the two differ."""
        return tuple(line for line in self.lines if not line.is_same)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "left": self.left,
            "right": self.right,
            "lines": [{**vars(line), "same": line.is_same, "change": line.change} for line in self.lines],
        }

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_text(self, *, width: int | None = None) -> str:
        """Return the table as text; what differs has a star.

        Args:
            width: The columns of the terminal; longer lines are cut. None: as wide as it takes.
        """
        rows = [("", "", self.left, self.right, "change" if any(line.change for line in self.lines) else "")]
        rows += [("" if line.is_same else "*", shown(line.name), *line._cells()) for line in self.lines]
        head, *texts = aligned(rows, width=width)
        out = [head]
        section = None
        for line, text in zip(self.lines, texts, strict=True):
            if line.section != section:
                section = line.section
                out += ["", section]
            out.append(text)
        return "\n".join([*out, "", self._summary()])

    def _summary(self) -> str:
        differ = len(self.differences)
        return f"* {differ} {'differs' if differ == 1 else 'differ'}, {len(self.lines) - differ} the same"

    def _repr_html_(self) -> str:
        """Return the table as HTML. What a manifest holds is not trusted: every cell is escaped."""
        out = [
            "<table><thead><tr><th></th>",
            f"<th>{html.escape(self.left)}</th><th>{html.escape(self.right)}</th><th>change</th></tr></thead><tbody>",
        ]
        section = None
        for line in self.lines:
            if line.section != section:
                section = line.section
                out.append(f'<tr><th colspan="4" style="text-align:left">{html.escape(section)}</th></tr>')
            style = "" if line.is_same else ' style="font-weight:bold"'
            cells = (shown(line.name), *line._cells())
            out.append(f"<tr{style}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        return "".join([*out, f"</tbody></table><p>{self._summary().removeprefix('* ')}</p>"])


def compare_versions(left: ModelVersion, right: ModelVersion) -> Comparison:
    """Put everything that two versions know of themselves side by side."""
    ours, theirs = dict(_facts(left)), dict(_facts(right))
    keys = sorted({*ours, *theirs}, key=lambda key: (_SECTIONS.index(key[0]), key[1]))
    return Comparison(
        left.ref,
        right.ref,
        tuple(
            Difference(section, name, ours.get((section, name)), theirs.get((section, name))) for section, name in keys
        ),
    )


def _facts(version: ModelVersion) -> Iterator[tuple[tuple[str, str], Any]]:
    yield from ((("metrics", name), value) for name, value in version.metrics.items())
    yield from _flat("hyperparameters", version.hyperparameters)
    yield from _flat("data", version.inputs)
    yield from _flat("code", version.code)
    yield from _flat("environment", version.environment)
    yield from _flat("signature", version.signature)
    published: dict[str, Any] = {
        "digest": version.digest,
        "at": version.created_at,
        "by": version.created_by,
        "size": version.size,
        "job": version.job,
        "notes": version.notes or None,
        "labels": version.labels,
    }
    yield from _flat("published", published)


def _flat(section: str, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield nested values one by one, their names joined by dots; things with a name, such as columns, by it."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(section, value, f"{prefix}{name}.")
        elif value and isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
            for item in value:
                rest = {key: detail for key, detail in item.items() if key != "name"}
                label = f"{prefix}{name}.{item['name']}"
                if rest:
                    yield from _flat(section, rest, f"{label}.")
                else:
                    yield (section, label), True
        elif value not in (None, {}):
            yield (section, f"{prefix}{name}"), value
