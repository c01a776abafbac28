"""How files become Arrow, and Arrow becomes files: CSV, JSON lines, Parquet and Arrow, local or at any fsspec
URL.

    places       where a file lies, and its bytes; refusals told in one sentence
    files        a file as it is now, and opening it
    members, archive_names   tables within archives, each at a place of its own
    foreign      files that are no table, and what to do with each
    find_files, file_hashes   which files a path names; their SHA-256
    shelf        which formats there are (`parts/readers`), and by what a file is known for one of them
    options      `Reading`: the words with which a recipe says how to read
    reader       what every reader of a file promises, and what they share
    texts        bytes → UTF-8 (compression, encodings), and what a file seems to be
    dialect      CSV's grammar, read with care: every record, its line, and why it cannot be read
    delimited    CSV and TSV, fast where the text is plain, careful where it is not
    headers, together   which CSV files of a source have a header
    jsonlines    JSON lines, nested fields flattened
    jsontable, jsonlist, jsonmarks   a JSON list, cut into its elements while it streams by
    columnar     Parquet and Arrow, nested fields flattened
    workbook, workbook_bounds   a sheet of Excel
    sqlite_rows  a table of an SQLite database
    arrays, array_header, array_sets   NumPy's arrays
    fixed_width  columns at the same places in every line
    streamed     a format that gives row after row, such as a user's own
    typed        the narrowest type that holds all of a column; changing from one type to another exactly
    sound        rows whose values nothing can hold; arrays that are broken as such
    frames       what an Arrow file says it has
    steady       what is read is what was hashed
    intact       whether a picture is whole
    rejects      rows that cannot be read, put aside
    extract      many files → one set of columns in plain Parquet, and rejects: files are looked over
    column_plan  … the columns that all files have together
    extract_rows … their rows, written and counted
    groups       batches → Parquet in good row groups
    table        any one readable thing as a table
    path_pattern files that are rows: patterns over their paths, names, encodings
    folders      what lies below a folder
    archive_entry, archive, tars, zips   members of archives, read where they lie
    row_shape, file_items, file_rows   files of folders and archives → rows
    file_columns, loading   files that rows name
    write        batches → a file

Rows are never dropped: each one is in the extract or in the rejects. This room knows no recipe, split or
dataset.
"""

from __future__ import annotations

from penstock.formats.extract import extract
from penstock.formats.options import Reading
from penstock.formats.reader import Input
from penstock.formats.table import ReadTable, read_table
from penstock.formats.write import TableWriter, write

__all__ = [
    "Input",
    "ReadTable",
    "Reading",
    "TableWriter",
    "extract",
    "read_table",
    "write",
]
