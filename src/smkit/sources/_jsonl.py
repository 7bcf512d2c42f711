"""JSON lines."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.json as pa_json

from smkit.arrow_memory import owned_buffer
from smkit.errors import SourceFormatError
from smkit.sources._datafile import (
    BLOCK_BYTES,
    FLOAT_EXACT,
    LONGEST_ROW_BYTES,
    WholeFile,
    check_header,
    declare,
    decompressed,
    format_errors,
    greatest_float,
    of_type,
    read_up_to,
    shown,
)
from smkit.sources._nested import declaration, fields_of
from smkit.sources._schemas import declarable

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from smkit.sources._datafile import DataFile
    from smkit.sources._filters import RowFilter


class JsonLines(WholeFile):
    """One JSON object a line; a field that a line lacks is NULL.

    Strings stay strings, also those that look like dates: JSON has no dates. A declared column exists even if the first
    lines lack it.
    """

    # pyarrow reads strings as text, and nothing else.
    any_as_text = False

    def schema(self, file: DataFile, declared: Mapping[str, pa.DataType]) -> pa.Schema:
        """Infer the types from the first block."""
        with closing(self._blocks(file)) as blocks:
            line, block = next(blocks, (0, b""))
        if not block:
            raise SourceFormatError(f"{file.name}: empty: a JSON lines file without a line has no columns")
        if block.lstrip()[:1] == b"[":
            raise SourceFormatError(
                f"{file.name}: a JSON array, but one object a line is expected: convert it, "
                f"for example with `jq -c '.[]'`"
            )
        explicit = pa.schema(list(declared.items()))
        found = self._parse(file, line, block, explicit, unexpected="infer", declared=declared).schema
        blank = block[: len(block) - len(block.lstrip())].count(b"\n")
        order = list(_object_of(file, line + blank, block.lstrip().partition(b"\n")[0]))
        check_header(file, found.names)
        types = {field.name: declared.get(field.name, _undo_date_guess(field.type)) for field in found}
        _check_big_integers(file, line, block, {name: types[name] for name in types if name not in declared})
        # The parser puts declared columns first; readers expect the order of the file.
        return pa.schema([(name, types[name]) for name in sorted(types, key=lambda n: _position(order, n))])

    def batches(
        self,
        file: DataFile,
        schema: pa.Schema,
        batch_size: int,
        *,
        projected: bool,
        declared: Collection[str],
        wanted: RowFilter,
    ) -> Generator[pa.RecordBatch, None, None]:
        """Parse block by block, in the schema's types."""
        del batch_size, wanted  # blocks are bytes
        unexpected = "ignore" if projected else "error"
        with closing(self._blocks(file)) as blocks:
            for line, block in blocks:
                found = self._parse(file, line, block, schema, unexpected=unexpected, declared=declared)
                inferred = {name: found[name] for name in found.column_names if name not in declared}
                if any(greatest_float(column) >= FLOAT_EXACT for column in inferred.values()):
                    _check_big_integers(file, line, block, {name: column.type for name, column in inferred.items()})
                yield from found.to_batches()

    def _parse(
        self,
        file: DataFile,
        line: int,
        block: bytes,
        explicit: pa.Schema,
        *,
        unexpected: str,
        declared: Collection[str],
    ) -> pa.Table:
        try:
            with format_errors(file):
                block.decode("utf-8")  # pyarrow would let broken text pass
                return pa_json.read_json(
                    pa.BufferReader(owned_buffer(block)),
                    read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                    parse_options=pa_json.ParseOptions(
                        explicit_schema=explicit if len(explicit) else None, unexpected_field_behavior=unexpected
                    ),
                )
        except SourceFormatError as error:
            misfit = _find_misfit(line, block, explicit, closed=unexpected == "error", declared=declared)
            raise SourceFormatError(f"{file.name}: {misfit}") if misfit else error from error

    def _blocks(self, file: DataFile) -> Generator[tuple[int, bytes], None, None]:
        """Yield whole lines, about a block's worth at a time, with the 1-based number of the first."""
        with format_errors(file), decompressed(file) as stream:
            number, rest, waiting = 1, list[bytes](), 0
            while True:
                part = read_up_to(stream, BLOCK_BYTES)
                lines, newline, tail = part.rpartition(b"\n")
                if part and not newline:
                    rest.append(part)
                    waiting += len(part)
                    if waiting > LONGEST_ROW_BYTES:
                        raise SourceFormatError(
                            f"{file.name}: line {number} is longer than the limit of {LONGEST_ROW_BYTES >> 20} MiB: "
                            f"one object a line is expected; an array can be converted with `jq -c '.[]'`"
                        )
                    continue
                block = b"".join([*rest, lines, newline])
                rest, waiting = [tail], len(tail)
                if block.strip():
                    yield number, block
                if not part:
                    return
                number += block.count(b"\n")


def _check_big_integers(file: DataFile, first_line: int, block: bytes, inferred: Mapping[str, pa.DataType]) -> None:
    """Refuse integers that inference would round: an id of 20 digits is no measurement."""
    if re.search(rb"\d{16}", block) is None:
        return
    for number, line in enumerate(block.split(b"\n"), first_line):
        if re.search(rb"\d{16}", line) is None:
            continue
        for name, value in _object_of(file, number, line).items():
            found = _rounded(name, value, inferred[name]) if name in inferred else None
            if found is not None:
                raise SourceFormatError(
                    f"{file.name}: column {found[0]!r} holds {found[1]}, an integer that a float would round: "
                    f"write it as a JSON string"
                )


def _object_of(file: DataFile, number: int, line: bytes) -> dict[str, Any]:
    """Read one line by itself; pyarrow does not mind where lines end."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise SourceFormatError(
            f"{file.name}: line {number} is not one JSON object ({error}): one object a line is expected, "
            f"and all of it in that line: convert it, for example with `jq -c .`"
        ) from error
    return cast("dict[str, Any]", found)


def _rounded(path: str, value: Any, type_: pa.DataType) -> tuple[str, int] | None:
    """Find an integer that a float would round, and where it is: `a.id` is a field of a struct."""
    if pa.types.is_floating(type_):
        return (path, value) if isinstance(value, int) and abs(value) > FLOAT_EXACT else None
    if pa.types.is_list(type_) and isinstance(value, list):
        inside = (_rounded(path, item, type_.value_type) for item in value)
    elif pa.types.is_struct(type_) and isinstance(value, dict):
        inside = (_rounded(f"{path}.{name}", value.get(name), field) for name, field in fields_of(type_).items())
    else:
        return None
    return next((found for found in inside if found is not None), None)


def _position(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _find_misfit(
    first_line: int, block: bytes, schema: pa.Schema, *, closed: bool, declared: Collection[str]
) -> str | None:
    """Find the line that the parser, which names neither line nor column, stumbled over.

    Args:
        first_line: Number of the block's first line.
        block: Lines.
        schema: The known columns.
        closed: Whether another column is an error.
        declared: The columns whose type the caller gave.
    """
    for number, line in enumerate(block.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            return f"line {number} is not JSON in UTF-8: {error}"
        if not isinstance(row, dict):
            return f"line {number} is not a JSON object"
        for name, value in row.items():
            index = schema.get_field_index(name)
            if index < 0:
                if closed:
                    return f"line {number}: column {name!r} is new, the first lines do not have it: {_fix(name, value)}"
                continue
            type_ = schema.types[index]
            misfit = _misfit(name, value, type_, closed=closed)
            if misfit is not None:
                fix = _fix(name, value, type_)
                if misfit.type is None:
                    return f"line {number}: field {misfit.path!r} is new, the first lines do not have it: {fix}"
                kind = of_type(misfit.type, declared=name in declared)
                what = "column" if misfit.path == name else "field"
                return f"line {number}: {what} {misfit.path!r} is {shown(misfit.value)}, but is read as {kind}: {fix}"
    return None


class _Misfit(NamedTuple):
    """A value that its place cannot hold; without a type the place does not exist."""

    path: str
    value: object
    type: pa.DataType | None


def _misfit(path: str, value: object, type_: pa.DataType, *, closed: bool) -> _Misfit | None:
    """Find what a column of this type cannot hold of what `json.loads` gave; `a.id` is a field of a struct."""
    if isinstance(value, dict) and pa.types.is_struct(type_):
        fields = fields_of(type_)
        for name, item in value.items():
            inside = f"{path}.{name}"
            if name in fields:
                found = _misfit(inside, item, fields[name], closed=closed)
            else:
                found = _Misfit(inside, item, None) if closed else None
            if found is not None:
                return found
        return None
    if isinstance(value, list) and pa.types.is_list(type_):
        items = (_misfit(f"{path}[{at}]", item, type_.value_type, closed=closed) for at, item in enumerate(value))
        return next((found for found in items if found is not None), None)
    return None if _fits(value, type_) else _Misfit(path, value, type_)


def _fix(name: str, value: object, type_: pa.DataType | None = None) -> str:
    """Return the advice for a column that has a type, or none yet, and a value that is no such."""
    try:
        found = _undo_date_guess(pa.array([value]).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # A list of numbers and texts has no type, nor has an integer beyond all.
        found = None
    both = found
    if found is not None and type_ is not None:
        both = declarable(type_, found, as_text=False)
    elif found == pa.null():
        both = pa.string()  # a guess: of what the column holds later nothing is known
    code = None if both is None else declaration(both)
    if code is not None:
        return declare(name, code)
    is_leaf = type_ is not None and not pa.types.is_nested(type_) and not isinstance(value, (list, dict))
    if is_leaf and (isinstance(value, str) or pa.types.is_string(type_)):
        return "write all its values as JSON strings"
    return f"no type holds all values of {name!r}: write them alike"


def _fits(value: object, type_: pa.DataType) -> bool:
    """Say whether a place of this type can hold a value that is no list and no object, or not of its kind."""
    if value is None:
        return True
    if isinstance(value, bool) or pa.types.is_boolean(type_):
        return isinstance(value, bool) and pa.types.is_boolean(type_)
    if pa.types.is_integer(type_):
        return isinstance(value, int)
    if pa.types.is_floating(type_):
        return isinstance(value, (int, float))
    if pa.types.is_list(type_) or pa.types.is_struct(type_) or pa.types.is_null(type_):
        return False
    if pa.types.is_nested(type_):
        return isinstance(value, (list, dict))
    return isinstance(value, (str, int) if pa.types.is_decimal(type_) else str)


def _undo_date_guess(type_: pa.DataType) -> pa.DataType:
    """Turn the timestamps that pyarrow sees in strings back into strings."""
    if pa.types.is_timestamp(type_):
        return pa.string()
    if pa.types.is_list(type_):
        return pa.list_(_undo_date_guess(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(name, _undo_date_guess(field)) for name, field in fields_of(type_).items()])
    return type_
