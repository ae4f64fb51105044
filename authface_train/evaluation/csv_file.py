"""CSV files that people hand over, read as text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from manifests.support.errors import UserError


def read_csv_file(file: Path) -> pd.DataFrame:
    """Read a CSV file without converting its values.

    Args:
        file: The file, in UTF-8 with or without a byte-order mark.

    Returns:
        All columns as text; empty cells are empty strings.

    Raises:
        UserError: If it cannot be read as CSV.
    """
    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (
        OSError,
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise UserError(f"{file} is not a CSV file ({str(error).splitlines()[0]})") from error
