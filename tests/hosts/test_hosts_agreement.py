"""Agreement of a device with this machine, and the known answer that an emulator must give first."""

from __future__ import annotations

import numpy as np
import pytest

from qpipe.hosts.agreement import Agreement

ROWS = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)


def test_equal_rows_are_said_to_be_bitwise_equal() -> None:
    agreement = Agreement()
    assert "no rows were compared" in agreement.remark
    agreement.add({"y": ROWS}, {"y": ROWS.copy()})
    agreement.add({"y": ROWS}, {"y": ROWS.copy()})
    assert agreement.remark.endswith("all 4 rows are bitwise equal")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([[1.0, 2.0], [4.0, 3.5]], "1 of 2 rows are bitwise equal, 2 rows have the same top class; "),
        ([[2.5, 2.0], [4.0, 3.0]], "1 of 2 rows are bitwise equal, 1 rows have the same top class; "),
        ([[1.0, np.nan], [4.0, 3.0]], "the largest difference is inf"),
    ],
)
def test_differences_are_counted(found: list[list[float]], words: str) -> None:
    agreement = Agreement()
    agreement.add({"y": ROWS}, {"y": np.array(found, np.float32)})
    assert words in agreement.remark


def test_the_largest_difference_stands_beside_the_largest_output() -> None:
    agreement = Agreement()
    agreement.add({"y": ROWS}, {"y": ROWS + np.float32(0.5)})
    assert "the largest difference is 0.5 (12 % of the largest output)" in agreement.remark
