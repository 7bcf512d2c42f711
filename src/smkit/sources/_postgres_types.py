"""PostgreSQL's types as Arrow's, by OID, and the decoding of their text format, a column at a time."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smkit.errors import SourceFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

    Decoder = Callable[[pa.Array, pa.DataType], pa.Array]

#: numeric without precision and scale: PostgreSQL allows any; 38 digits on either side are exact or an error.
UNCONSTRAINED_NUMERIC = pa.decimal256(76, 38)
_TIMESTAMP = pa.timestamp("us")
_TIMESTAMPTZ = pa.timestamp("us", tz="UTC")
_MAX_PRECISION = 76
_NUMERIC, _NUMERIC_ARRAY = 1700, 1231

Numeric = Literal["decimal", "float"]
Arrays = Literal["list", "text"]


@dataclass(frozen=True)
class TypeChoices:
    """What the user chooses where a type has more than one counterpart.

    Args:
        numeric: `decimal`, exact or an error; or `float`, the nearest one.
        arrays: `list`; or `text`, as psql shows them.
    """

    numeric: Numeric = "decimal"
    arrays: Arrays = "list"


@dataclass(frozen=True)
class Column:
    """A column of a result: its name, its type there and here, and how text becomes values."""

    name: str
    oid: int
    type: pa.DataType
    decoder: Decoder

    @property
    def csv_type(self) -> pa.DataType:
        """The type that Arrow's CSV reader reads as the decoder would; text where it cannot, for the decoder."""
        parsed = self.decoder in {_bool, _cast, _nearest_float, _timestamptz}
        return self.type if parsed and not pa.types.is_decimal256(self.type) else pa.string()

    def is_right(self, parsed: pa.Array) -> bool:
        """Tell whether what the CSV reader has parsed is what the decoder would have made of the text."""
        # A number too large for a float looks like infinity there.
        return self.decoder is not _nearest_float or not pc.any(pc.is_inf(parsed)).as_py()

    def decode(self, texts: pa.Array) -> pa.Array:
        """Turn the server's texts into values.

        Args:
            texts: Strings; NULL is null.

        Raises:
            SourceFormatError: A value has no counterpart, such as a date of `infinity`; the message says what to do.
        """
        try:
            return self.decoder(texts, self.type)
        except (pa.ArrowException, ValueError):
            # Arrow names only some of the values that it does not take.
            bad = next((text for text in texts.to_pylist() if text is not None and not self._can_decode(text)), "")
            raise SourceFormatError(self.explain(bad)) from None

    def explain(self, bad: str) -> str:
        """Say that a value, as the server writes it, has no counterpart, and what to do."""
        quoted = '"' + self.name.replace('"', '""') + '"'
        return f"column {self.name!r}: PostgreSQL's {bad!r} is no {self.type}: {_advice(bad, quoted, self.type)}"

    def _can_decode(self, text: str) -> bool:
        try:
            self.decoder(pa.array([text], pa.string()), self.type)
        except (pa.ArrowException, ValueError):
            return False
        return True


def column_of(name: str, oid: int, typmod: int, choices: TypeChoices) -> Column:
    """Return the type of a column.

    Args:
        name: Its name.
        oid: The type's OID, as in the catalog `pg_type`.
        typmod: The type modifier: for numeric, precision and scale; -1 where there is none.
        choices: What the user wants where there is a choice.
    """
    if oid == _NUMERIC:
        return Column(name, oid, *_numeric(typmod, choices))
    if oid in _SCALARS:
        return Column(name, oid, *_SCALARS[oid])
    if oid == _NUMERIC_ARRAY and choices.arrays == "list":
        return _list_of(name, oid, *_numeric(typmod, choices))
    if oid in _ARRAYS and choices.arrays == "list":
        return _list_of(name, oid, *_SCALARS[_ARRAYS[oid]])
    # uuid, json, interval, inet, enums, ranges, composites, extensions' types ...: what psql shows.
    return Column(name, oid, pa.string(), _text)


def _numeric(typmod: int, choices: TypeChoices) -> tuple[pa.DataType, Decoder]:
    if choices.numeric == "float":
        return pa.float64(), _nearest_float
    type_ = _decimal(typmod)
    return type_, _text if pa.types.is_string(type_) else _cast


def _decimal(typmod: int) -> pa.DataType:
    """Unpack numeric's modifier: 16 bits of precision, 11 of signed scale, plus 4."""
    if typmod < 0:
        return UNCONSTRAINED_NUMERIC
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 0x400) - 0x400
    # numeric(3, -2) holds 99900; numeric(2, 4) holds 0.0099.
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    if precision > _MAX_PRECISION:
        return pa.string()
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _text(column: pa.Array, _type: pa.DataType) -> pa.Array:
    return column


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    return column.cast(type_)


def _nearest_float(column: pa.Array, type_: pa.DataType) -> pa.Array:
    floats = column.cast(type_)
    infinite = pc.is_inf(floats)
    if pc.any(infinite).as_py() and pc.any(pc.invert(pc.match_substring(column.filter(infinite), "Infinity"))).as_py():
        raise ValueError("a number too large for a float")
    return floats


def _bool(column: pa.Array, _type: pa.DataType) -> pa.Array:
    return pc.equal(column, "t")


def _time(column: pa.Array, type_: pa.DataType) -> pa.Array:
    # Arrow casts text to timestamps only.
    day = pc.binary_join_element_wise(pa.scalar("1970-01-01"), column, " ")
    return day.cast(_TIMESTAMP).cast(type_)


def _timestamptz(column: pa.Array, type_: pa.DataType) -> pa.Array:
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:
        # Arrow knows no seconds in an offset: in Shanghai until 1901, +08:05:43.
        return pa.array([None if text is None else _instant(text) for text in column.to_pylist()], type_)


def _instant(text: str) -> dt.datetime:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?", text)
    if match is None:
        raise ValueError(text)
    moment, fraction, sign, hours, minutes, seconds = match.groups()
    offset = dt.timedelta(hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0))
    zone = dt.timezone(-offset if sign == "-" else offset)
    microsecond = int((fraction or "").ljust(6, "0"))
    return dt.datetime.fromisoformat(moment).replace(microsecond=microsecond, tzinfo=zone)


def _bytea(column: pa.Array, type_: pa.DataType) -> pa.Array:
    # The hex format: \x and two digits a byte. All values at once: their digits lie behind one another.
    digits = pc.utf8_slice_codeunits(pc.fill_null(column, "\\x"), 2)
    data = bytes.fromhex(pc.binary_join(pa.ListArray.from_arrays([0, len(digits)], digits), "")[0].as_py())
    ends = np.cumsum(pc.binary_length(digits).to_numpy() // 2, dtype=np.int32)
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int32), ends]))
    values = pa.Array.from_buffers(type_, len(column), [None, offsets, pa.py_buffer(data)])
    return pc.if_else(column.is_valid(), values, pa.scalar(None, type_)) if column.null_count else values


_SCALARS: dict[int, tuple[pa.DataType, Decoder]] = {
    16: (pa.bool_(), _bool),
    17: (pa.binary(), _bytea),
    20: (pa.int64(), _cast),
    21: (pa.int16(), _cast),
    23: (pa.int32(), _cast),
    25: (pa.string(), _text),
    26: (pa.int64(), _cast),  # oid: unsigned, 32 bits
    700: (pa.float32(), _cast),
    701: (pa.float64(), _cast),
    1082: (pa.date32(), _cast),
    1083: (pa.time64("us"), _time),
    1114: (_TIMESTAMP, _cast),
    1184: (_TIMESTAMPTZ, _timestamptz),
}

#: OID of an array -> OID of what it holds, 25 standing for whatever is text here.
_ARRAYS = {
    1000: 16,
    1001: 17,
    1005: 21,
    1007: 23,
    1016: 20,
    1021: 700,
    1022: 701,
    1028: 26,
    1115: 1114,
    1182: 1082,
    1183: 1083,
    1185: 1184,
    # text, varchar, char(n), name, uuid, json, jsonb, interval, inet
    **dict.fromkeys((1009, 1015, 1014, 1003, 2951, 199, 3807, 1187, 1041), 25),
}

_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}]+)', re.DOTALL)


def _list_of(name: str, oid: int, item: pa.DataType, item_decoder: Decoder) -> Column:
    def decode(column: pa.Array, type_: pa.DataType) -> pa.Array:
        items, lengths = _split_plain(column) if _is_plain(column) else _parse_all(column)
        ends = np.cumsum(lengths, dtype=np.int32)
        offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
        if column.null_count:
            missing = np.append(column.is_null().to_numpy(zero_copy_only=False), False)
            offsets = pa.array(offsets.to_numpy(), mask=missing)
        return pa.ListArray.from_arrays(offsets, item_decoder(items, item)).cast(type_)

    return Column(name, oid, pa.list_(item), decode)


def _is_plain(column: pa.Array) -> bool:
    """Tell whether no array quotes an item, says where it starts, or has arrays in it."""
    return not pc.any(pc.match_substring_regex(column, r'^\[|["\\]|^.\{')).as_py()


def _split_plain(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Split arrays without quotes, such as `{1,NULL,-3}`: all at once."""
    inner = pc.utf8_slice_codeunits(column, 1, -1)
    filled = pc.if_else(pc.equal(pc.fill_null(inner, ""), ""), pa.scalar(None, pa.string()), inner)
    split = pc.split_pattern(filled, ",")
    items = pc.list_flatten(split)
    items = pc.if_else(pc.equal(items, "NULL"), pa.scalar(None, pa.string()), items)
    return items, pc.fill_null(pc.list_value_length(split), 0).to_numpy()


def _parse_all(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    parsed = [[] if text is None else _parse_array(text) for text in column.to_pylist()]
    items = [item for array in parsed for item in array]
    return pa.array(items, pa.string()), np.array([len(array) for array in parsed], np.int64)


def _parse_array(text: str) -> list[str | None]:
    """Split the text of a one-dimensional array: `{1,NULL,"a b"}`, or `[0:1]={1,2}` where it does not start at 1."""
    if text.startswith("["):
        text = text.partition("=")[2]
    if text.startswith("{{"):
        raise ValueError("an array of several dimensions")
    items: list[str | None] = []
    for match in _ITEM.finditer(text, 1, len(text) - 1):
        quoted, plain = match.groups()
        if plain is None:
            items.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            items.append(None if plain == "NULL" else plain)
    return items


def _advice(text: str, column: str, type_: Any) -> str:
    if pa.types.is_list(type_):
        return (
            f"only arrays of one dimension whose items have a counterpart can be read: "
            f'read with arrays="text", or select array_to_json({column})::text, or unnest it'
        )
    if pa.types.is_float64(type_):
        return f'it is beyond the range of a float: read with numeric="decimal", or select {column}::text'
    if "infinity" in text.lower():
        return f"select NULLIF(NULLIF({column}, 'infinity'), '-infinity')" + (
            f', or {column}::float8; or read with numeric="float"' if pa.types.is_decimal(type_) else ""
        )
    if pa.types.is_decimal(type_):
        if text == "NaN":
            return f"select NULLIF({column}, 'NaN'), or {column}::float8; or read with numeric=\"float\""
        return f'select round({column}, 10), {column}::float8 or {column}::text; or read with numeric="float"'
    if pa.types.is_time(type_):
        return f"select {column}::text: times here end at 23:59:59.999999"
    return f"only the years 1 to 9999 can be read: select {column}::text, or NULLIF what stands for no date"
