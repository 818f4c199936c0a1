"""CSV and TSV files."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, truncated_list
from fedlas._core.text import truncate
from fedlas.predictions.tables.formats import lines
from fedlas.predictions.tables.formats.arrow import (
    ArrowFile,
    append_columns,
    append_constant_columns,
    import_pyarrow,
    to_record_batch,
    translate_arrow_errors,
)
from fedlas.predictions.tables.formats.compression import data_suffix, open_decompressed
from fedlas.predictions.tables.formats.format import Format, Writer

_SAMPLE = 200
"""Number of rows in which decimal commas and percent signs are detected."""
_LONGEST_HEADER = 1 << 22
"""Maximum length of the header line: each character takes 50 bytes in memory."""
# Possessive: a cell of 100,000 digits or blanks would take minutes if each way to share them out were tried.
_DECIMAL_COMMA = re.compile(r"\s*+[-+]?\d*+,\d++([eE][-+]?\d++)?\s*+%?\s*+")
_DECIMAL_POINT = re.compile(r"\s*+[-+]?\d*+\.\d++([eE][-+]?\d++)?\s*+%?\s*+")
_MAYBE_THOUSANDS = re.compile(r"\s*+([-+]?([1-9]\d{0,2}(,\d{3})++|\d++)\s*+%?\s*+)?")
_PERCENT = re.compile(r"\s*+[-+]?(\d++([.,]\d++)?|[.,]\d++)\s*+%\s*+")


def detect_separator(header: str, suffix: str) -> str:
    """Return the separator of a header line: the most frequent candidate outside quotes."""
    signs = "\t,;|" if suffix == ".tsv" else ",;\t|"
    return max(signs, key=_remove_quoted(header).count)


def _remove_quoted(header: str) -> str:
    """Return a header without its quoted parts."""
    return re.sub('"[^"]*"', "", header)


class Delimited(ArrowFile):
    """CSV or TSV file with a header, in UTF-8; labels are read as text, so ``007`` and ``nan`` stay unchanged.

    The separator (comma, semicolon, tab or bar), a decimal comma and percent signs are noticed in the first rows.

    Args:
        path: The file.
        separator: The separator; None notices it.
        partition: Columns of one text in each row, as ``year=2026`` in the names of its folders says.

    Attributes:
        in_percent: Columns with percent signs in the first rows, which are read as text.
    """

    options = ("separator", "partition")
    in_percent: frozenset[str] = frozenset()

    def __init__(
        self, path: Path, separator: str | None = None, partition: Mapping[str, str] | None = None
    ) -> None:
        self.delimiter = separator or ""
        super().__init__(path)
        self._header = self.names
        self._partition = {
            name: text for name, text in (partition or {}).items() if name not in self._header
        }
        self.names = [*self._header, *self._partition]

    def _read_names(self) -> list[str]:
        lines.check_utf8_text(self.path)
        # The text decoded with the header may be rows already, whose errors have a number.
        with lines.open_lines(self.path, "", _LONGEST_HEADER) as file:
            first = next(filter(str.strip, file), "")
        with lines.open_lines(self.path, "") as file:
            noticed = detect_separator(first, data_suffix(self.path))
            if not self.delimiter:
                self.delimiter = noticed
                if self.delimiter not in ",\t":
                    self.notes.append(f"Columns are separated by {self.delimiter!r}.")
            elif self.delimiter not in (unquoted := _remove_quoted(first)) and noticed in unquoted:
                # The separator that was passed belongs to another file of the same call.
                text = f"Columns of {self.label} are separated by {noticed!r}, not by {self.delimiter!r}."
                self.notes.append(text)
                self.delimiter = noticed
            rows = filter(None, csv.reader(file, delimiter=self.delimiter, strict=True))
            try:
                header = next(rows, [])
            except csv.Error as error:
                longest = max(map(len, first.split(self.delimiter)))
                if longest <= (limit := csv.field_size_limit()):
                    raise
                raise InputError(
                    f"column names must be at most {limit:,} characters long",
                    f"{longest:,} in {self.label}",
                    "Check the first line.",
                ) from error
            names = [name.strip() for name in header]
            names = names if len(set(names)) == len(names) else header
            "".join(names).encode()  # an error for bytes that are no UTF-8
            with suppress(csv.Error):  # pyarrow reports the row
                self._detect_number_style(names, list(islice(rows, _SAMPLE)))
        if not names:
            raise InputError(
                "the first line must name the columns",
                f"an empty file, {self.path}",
                "Add a header.",
            )
        return names

    @property
    def layout(self) -> Any:
        """Properties that all files of one table must share: format, columns, separator, decimal mark."""
        return *super().layout, self.delimiter, self.decimal_point

    def _detect_number_style(self, names: list[str], rows: list[list[str]]) -> None:
        """Detect a decimal comma and percent signs in the first rows."""
        columns = {
            name: [row[place] for row in rows if place < len(row)]
            for place, name in enumerate(names)
        }
        commas, points = (
            {name for name, cells in columns.items() if any(map(pattern.fullmatch, cells))}
            for pattern in (_DECIMAL_COMMA, _DECIMAL_POINT)
        )
        commas = commas if self.delimiter != "," else set()
        if points:
            self.decimal_mark = "."
            # 1,234 may be a thousand beside numbers with points; 0,5 is not
            self.comma_columns = frozenset(
                name
                for name in commas - points
                if not all(map(_MAYBE_THOUSANDS.fullmatch, columns[name]))
            )
            if self.comma_columns:
                named = truncated_list([name for name in names if name in self.comma_columns])
                self.notes.append(f"Numbers of {named} have a decimal comma, others a point.")
        elif commas:
            self.decimal_point = self.decimal_mark = ","
            self.notes.append("Numbers have a decimal comma.")
        percent = {
            name
            for row in rows
            for name, cell in zip(names, row, strict=False)
            if _PERCENT.fullmatch(cell)
        }
        self.in_percent = frozenset(percent)

    def _iter_blocks(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> Iterator[tuple[Any, Any]]:
        types = dict.fromkeys(others, "string") | dict.fromkeys(numbers, "float64")
        as_text = self.in_percent | self.comma_columns
        types |= dict.fromkeys(as_text.intersection(numbers), "string")
        if self.keeps_all:  # each cell keeps its text
            types = dict.fromkeys(self._header, "binary") | dict.fromkeys(types, "string")
        partition = {
            name: text for name, text in self._partition.items() if self.keeps_all or name in types
        }
        types = {name: kind for name, kind in types.items() if name not in partition}
        types = types or {self._header[0]: "binary"}
        header = b""
        # Blocks of whole rows, not pyarrow's open_csv: where a quote is never closed, that takes several rows for one
        # without an error; it refuses rows longer than its blocks, and 1,000,000 rows take 161 MiB, not 66.
        for content, rows in lines.iter_row_blocks(self.path, self.delimiter):
            if not header:
                header = rows[0].as_py().strip(b"\r\n")
                content = content[bytes(content).index(header) + len(header) :]
                rows = rows[1:]
            if len(rows):
                try:
                    table = self.parse_columns(content, types)
                except ValueError as error:
                    raise self._first_row_error(rows, types) or error from error
                lines.drop_blank_rows(rows, table.num_rows, self._rows, self.label)
                batch = append_constant_columns(to_record_batch(table), partition)
                yield batch, batch

    def to_arrow_table(self, rows: Any, numbers: Collection[str]) -> Any:
        """Return all columns of rows as an Arrow table, with ``numbers`` converted; percent signs are kept."""
        columns = []
        for name in rows.schema.names:
            column = rows.column(name)
            if name in numbers and name not in self.in_percent:
                column = self.arrow.array(self._column_numbers(column, name, {}))
            is_binary = self.arrow.types.is_binary(column.type)
            columns.append(column.cast("string") if is_binary else column)
        return self.arrow.table(columns, names=rows.schema.names)

    def _check_number_texts(
        self, texts: Sequence[Any], numbers: Mapping[Any, float | None], name: str
    ) -> None:
        """Raise InputError for the first text that is not a number."""
        for row, text in enumerate(texts, self._rows + 1):
            if numbers[text] is None and text not in (None, "", *self.missing):
                raise _not_a_number_error(text, f"row {row}, column {name!r} of {self.label}")

    def _first_row_error(self, rows: Any, types: dict[str, str]) -> InputError | None:
        """Return the error for the first row that pyarrow cannot read, or None."""

        def fails(rows: Any, types: dict[str, str] = types) -> bool:
            try:
                self.parse_columns(b"".join(rows.to_pylist()), types)
            except ValueError:
                return True
            return False

        # pyarrow names rows in the text of its errors alone, so ever fewer rows are read again
        first = bisect_left(range(len(rows)), True, key=lambda last: fails(rows[: last + 1]))
        where = f"row {self._rows + first + 1}"
        row = rows[first : first + 1]
        if not len(row):
            return None
        text = row[0].as_py().decode(errors="surrogateescape")
        try:
            cells = next(csv.reader([text.strip("\r\n")], delimiter=self.delimiter))
        except (
            csv.Error
        ) as error:  # a cell of more than 131,072 characters, or a lone carriage return
            return InputError(
                "every row must be readable as CSV",
                f"{error} in {where} of {self.label}",
                "Check the quotes in this row; quote line breaks, and leave out columns of long text.",
            )
        if len(cells) != len(self._header):
            return InputError(
                f"every row must have {len(self._header)} cells, like the header",
                f"{len(cells)} in {where} of {self.label}",
                "Quote cells that hold commas.",
            )
        for name, cell in zip(self._header, cells, strict=True):
            if name not in types or not fails(row, {name: types[name]}):
                continue
            where = f"{where}, column {name!r} of {self.label}"
            if types[name] == "string":
                return InputError(
                    "text must be UTF-8", f"other bytes in {where}", "Save the file as UTF-8."
                )
            return _not_a_number_error(cell, where)
        return None

    def parse_columns(self, content: Any, types: dict[str, str]) -> Any:
        """Return the columns ``types`` parsed from the bytes of rows."""
        reader = import_pyarrow(".csv")
        size = max(1 << 20, len(content))
        blocks = reader.ReadOptions(use_threads=False, column_names=self._header, block_size=size)
        cells = reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        values = reader.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=["", *self.missing],
            decimal_point=self.decimal_point,
        )
        return reader.read_csv(self.arrow.BufferReader(content), blocks, cells, values)


class DelimitedWriter(Writer):
    """Writer of CSV and TSV; cells are quoted only where necessary."""

    def __init__(
        self, file: IO[bytes], source: Format, scores: Sequence[str], prefix: str, suffix: str
    ) -> None:
        super().__init__(file, source, scores, prefix, suffix)
        first = source.files[0]
        self._delimiter = "\t" if suffix == ".tsv" else ","
        self._comma_columns: list[str] = []
        if isinstance(first, Delimited):
            self._comma_columns = [
                name
                for name, score in zip(self.names, scores, strict=False)
                if first.column_decimal_point(score) == ","
            ]
            if data_suffix(first.path) == suffix:
                self._delimiter = first.delimiter
            with open_decompressed(first.path) as head:
                file.write(lines.BOM * (head.read(3) == lines.BOM))
        header = io.StringIO()
        csv.writer(header, delimiter=self._delimiter, lineterminator="\n").writerow(
            [*source.names, *self.names]
        )
        file.write(header.getvalue().encode())

    def write(self, source: Any, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write rows with their additional columns."""
        with translate_arrow_errors(self.suffix, source.label):
            if not isinstance(source, Delimited):
                rows = source.to_arrow_table(rows, self.scores)
            rows = append_columns(rows, self.names, arrays)
            if self._comma_columns:
                rows = self._use_decimal_commas(rows)
            try:
                content = self._to_csv(rows, "none")
            except ValueError:  # a cell holds a separator, a quote or the end of a line
                content = self._to_csv(rows, "needed")
            self.file.write(content)

    def _to_csv(self, rows: object, quoting: str) -> Any:
        writer = import_pyarrow(".csv")
        options = writer.WriteOptions(
            include_header=False, delimiter=self._delimiter, quoting_style=quoting
        )
        text = import_pyarrow().BufferOutputStream()
        writer.write_csv(rows, text, options)
        return memoryview(text.getvalue())

    def _use_decimal_commas(self, rows: Any) -> Any:
        """Return rows whose added columns have a decimal comma, like their scores."""
        compute = import_pyarrow(".compute")
        for name in self._comma_columns:
            place = rows.schema.get_field_index(name)
            texts = compute.replace_substring(rows.column(place).cast("string"), ".", ",")
            rows = rows.set_column(place, name, texts)
        return rows


def _not_a_number_error(cell: object, where: str) -> InputError:
    """Return the InputError for a cell of a numeric column that is not a number."""
    return InputError(
        "scores must be numbers",
        f"{truncate(repr(cell), 60)} in {where}",
        [
            "write numbers, or name other score columns",
            ("drop rows with missing numbers by ", Argument("drop_missing", True)),
        ],
    )
