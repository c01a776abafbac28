"""Files that are no table that Penstock reads, and what to do with each: by ending and by first bytes.

Such a file is refused before anything guesses at it: a workbook of old Excel read as CSV would be rows of
rubbish. Nothing that is pickled is ever opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

_PANDAS = "python -c \"import pandas as pd; pd.{read}.to_parquet('{name}.parquet')\""


@dataclass(frozen=True)
class Foreign:
    """A kind of file that is refused as a table."""

    what: str
    """With its article."""
    remedy: str
    """What to do, as sentences; `{name}` stands for the file's name without its ending."""
    endings: tuple[str, ...]
    magic: tuple[bytes, ...] = ()

    def sentence(self, url: str) -> str:
        """The refusal of one file of this kind."""
        path = PurePosixPath(url)
        remedy = self.remedy.replace("{file}", path.name).replace("{name}", path.stem)
        return f"{url} is {self.what}, which is not read as a table. {remedy}"


def _by_pandas(read: str, *, needs: str) -> str:
    command = _PANDAS.replace("{read}", read)
    return f"Convert it, for example with: {command} ({needs})."


_PICKLED = (
    "It may run code when it is opened, so Penstock never opens one. In the program that made it, write the"
    " table as Parquet instead (`frame.to_parquet('{name}.parquet')`)."
)
_PICTURES = (
    "To learn from pictures, name the folder they are in, or a table whose column names them:"
    " `source: {type: folder, path: …}` or `load: {image: {root: …}}`."
)
_OFFICE = "Write the table that is in it as CSV: in its program, copy the table to a sheet and save that."

FOREIGN = (
    Foreign(
        "a workbook of Excel 97-2003 or a document of old Office",
        "In Excel or LibreOffice save it as .xlsx, or convert it with:"
        " soffice --headless --convert-to xlsx '{file}'.",
        (".xls", ".doc", ".ppt"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
    ),
    Foreign(
        "a binary workbook or another form of spreadsheet",
        "Save it as .xlsx, or convert it with: soffice --headless --convert-to xlsx '{file}'.",
        (".xlsb", ".ods", ".numbers"),
    ),
    Foreign("a pickle", _PICKLED, (".pickle", ".pkl", ".joblib")),
    Foreign("a pickle of PyTorch or Keras", _PICKLED, (".pt", ".pth", ".ckpt")),
    Foreign(
        "a file of R",
        "Convert it in R, for example with: arrow::write_parquet(readRDS('{file}'), '{name}.parquet').",
        (".rds", ".rdata", ".rda"),
        (b"RDX2\n", b"RDX3\n"),
    ),
    Foreign(
        "a file of SPSS",
        _by_pandas("read_spss('{file}')", needs="pip install pyreadstat"),
        (".sav", ".zsav", ".por"),
        (b"$FL2@(#)", b"$FL3@(#)"),
    ),
    Foreign(
        "a file of Stata",
        _by_pandas("read_stata('{file}')", needs="pandas alone"),
        (".dta",),
        (b"<stata_dta>",),
    ),
    Foreign(
        "a file of SAS",
        _by_pandas("read_sas('{file}')", needs="pandas alone"),
        (".sas7bdat", ".xpt"),
    ),
    Foreign(
        "a file of MATLAB",
        "Convert it, for example with scipy.io.loadmat and numpy.savez: an .npz with one array a column, or"
        " one of all features and one of the target, is read.",
        (".mat",),
        (b"MATLAB 5.0 MAT-file",),
    ),
    Foreign(
        "a file of HDF5",
        "A table that pandas wrote: "
        + _by_pandas("read_hdf('{file}')", needs="pip install tables")
        + " Plain arrays: read them with h5py and write them with numpy.savez; an .npz is read.",
        (".h5", ".hdf5", ".hdf", ".keras"),
        (b"\x89HDF\r\n\x1a\n",),
    ),
    Foreign(
        "a file of Avro",
        "Convert it to JSON lines, for example with: avro cat '{file}' > '{name}.jsonl' (pip install avro).",
        (".avro",),
        (b"Obj\x01",),
    ),
    Foreign(
        "XML",
        _by_pandas("read_xml('{file}')", needs="pip install lxml"),
        (".xml",),
        (b"<?xml",),
    ),
    Foreign(
        "a web page",
        'Convert its table, for example with: python -c "import pandas as pd;'
        " pd.read_html('{file}')[0].to_csv('{name}.csv', index=False)\" (pip install lxml). Was a file to be"
        " downloaded? Then this may be the page of an error or a log-in.",
        (".html", ".htm"),
        (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
    ),
    Foreign(
        "a PDF",
        f"{_OFFICE} Or take it out with camelot or tabula.",
        (".pdf",),
        (b"%PDF-",),
    ),
    Foreign(
        "a document of Office",
        _OFFICE,
        (".docx", ".odt", ".rtf", ".pptx", ".odp"),
        (b"{\\rtf",),
    ),
    Foreign(
        "a picture",
        _PICTURES,
        (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic"),
        (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"),
    ),
    Foreign(
        "sound or a film",
        "Name a table of features of it; Penstock reads tables, texts and pictures.",
        (".wav", ".mp3", ".flac", ".ogg", ".mp4", ".avi", ".mov", ".mkv"),
        (b"ID3", b"fLaC", b"OggS"),
    ),
    Foreign(
        "packed by 7-Zip or RAR",
        "Unpack it, and name the folder; or pack it as .zip or .tar.gz, which are read as they are.",
        (".7z", ".rar"),
        (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"),
    ),
    Foreign(
        "a program",
        "Name the files of data.",
        (".exe", ".dll", ".so", ".pyc", ".jar"),
        (b"\x7fELF", b"MZ\x90"),
    ),
    Foreign(
        "weights of a model",
        "A source has data; name a table, or a folder of files.",
        (".safetensors", ".onnx", ".gguf", ".tflite"),
    ),
    Foreign(
        "records of TensorFlow",
        "Convert them with tf.data.TFRecordDataset and pyarrow to Parquet.",
        (".tfrecord", ".tfrecords"),
    ),
)
"""By ending or first bytes; the first that fits speaks."""


def foreign(url: str, start: bytes) -> Foreign | None:
    """The kind of file that is refused as a table and that this one is, by its first bytes, else its ending;
    None where it may be a table.
    """
    for kind in FOREIGN:
        if kind.magic and start.startswith(kind.magic):
            return kind
    ending = PurePosixPath(url).suffix.lower()
    return next((kind for kind in FOREIGN if ending in kind.endings), None)
