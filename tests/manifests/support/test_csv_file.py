"""CSV files that grow by one row at a time."""

import pytest

from manifests.support.csv_file import CsvLog, read_rows, write_rows


def test_rows_round_trip_with_empty_cells(tmp_path):
    path = tmp_path / "table.csv"
    write_rows(path, [{"step": 1, "loss": 0.5}, {"step": 2, "note": "a, b"}])
    assert read_rows(path) == [
        {"step": "1", "loss": "0.5", "note": ""},
        {"step": "2", "loss": "", "note": "a, b"},
    ]


def test_given_columns_are_the_header(tmp_path):
    path = tmp_path / "table.csv"
    write_rows(path, [{"step": 1, "loss": 0.5}], columns=["loss", "psnr"])
    assert path.read_text().splitlines() == ["loss,psnr", "0.5,"]


def test_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "missing.csv") == []


def test_new_column_extends_header_and_keeps_rows(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.append({"step": 1, "loss": 0.1})
    log.append({"step": 2, "loss": None})
    log.append({"step": 3, "loss": 0.3, "psnr": 20.0})
    log.append({"step": 4, "psnr": 21.0})
    assert read_rows(log.path) == [
        {"step": "1", "loss": "0.1", "psnr": ""},
        {"step": "2", "loss": "", "psnr": ""},
        {"step": "3", "loss": "0.3", "psnr": "20.0"},
        {"step": "4", "loss": "", "psnr": "21.0"},
    ]


def test_floats_keep_full_precision(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.append({"loss": 0.1 + 0.2})
    assert float(read_rows(log.path)[0]["loss"]) == 0.1 + 0.2


# A row that is cut inside its last cell looks complete, except for the missing end of the line.
@pytest.mark.parametrize("cut_row", ["2", "2,0", "2,0.", "2,0.2,0"])
def test_row_cut_off_by_a_kill_is_dropped(tmp_path, cut_row):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss,time\n1,0.1,0.5\n{cut_row}")
    assert [row["step"] for row in read_rows(path)] == ["1"]


@pytest.mark.parametrize("cut_row", ["2", "2,0.", "2,0.2,0"])
def test_append_after_a_cut_off_row_starts_a_new_row(tmp_path, cut_row):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss,time\n1,0.1,0.5\n{cut_row}")
    CsvLog(path).append({"step": 3, "loss": 0.3, "time": 0.7})
    assert [row["step"] for row in read_rows(path)] == ["1", "3"]
