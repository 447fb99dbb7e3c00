"""The functions for labels of other kinds in docs/gates.md do what the page says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qpipe.errors import DataError
from qpipe.metrics import find_metric
from qpipe.plugins.metric import Metric, Rows

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
Score = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], Metric]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scores_of_the_page.py").write_text(PAGE.split("```python\n")[1].split("```")[0], encoding="utf-8")
    return tmp_path


def spread(symbols: list[list[int]], count: int) -> np.ndarray:
    """Logits whose largest is the symbol's, [n, length, count]."""
    return np.eye(count, dtype=np.float32)[np.array(symbols)]


Y_HAT = np.array([[1.0, 2.0], [0.0, 5.0]])
CASES = {
    "known_targets": ({"y_hat": Y_HAT}, {"y": np.array([[2.0, np.nan], [0.0, 1.0]])}, [1.0, 2.0]),
    "weighted": ({"y_hat": Y_HAT}, {"y": Y_HAT + 1, "weight": np.array([1.0, 3.0])}, [0.5, 1.5]),
    "percent": ({"y_hat": Y_HAT}, {"y": np.array([[0.0, 4.0], [0.0, 4.0]])}, [0.75, 0.125]),
    "steps_off": ({"logits": np.eye(5)[[0, 3]]}, {"grade": np.array([2, 3])}, [2.0, 0.0]),
    "pixels": (
        {"logits": np.eye(3)[np.array([[[0, 1], [2, 2]]])].transpose(0, 3, 1, 2)},
        {"mask": np.array([[[0, 2], [255, 2]]])},
        [2 / 3],
    ),
    "tokens": ({"logits": spread([[1, 2, 0]], 3)}, {"tags": np.array([[1, 0, -100]])}, [0.5]),
    "all_right": ({"logits": np.array([[1.0, -1.0], [1.0, 1.0]])}, {"labels": np.array([[1, 0], [1, 0]])}, [1.0, 0.0]),
    "sequence": (
        {"logits": spread([[1, 1, 0, 1, 2], [0, 1, 2, 2, 0], [0, 0, 0, 0, 0]], 3)},
        {"text": np.array([[1, 1, 2], [1, 1, 2], [0, 0, 0]])},
        [1.0, 0.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_of_the_page(folder, name):
    outputs, columns, expected = CASES[name]
    metric = find_metric(f"scores_of_the_page:{name}", (), folder)
    assert metric.measure(Rows(outputs=outputs, columns=columns, label=None)).values.ravel().tolist() == (
        pytest.approx(expected)
    )
    assert metric.higher_is_better == (name in {"pixels", "tokens", "all_right", "sequence"})


def test_every_function_of_the_page_is_tried():
    block = PAGE.split("```python\n")[1].split("```")[0]
    assert {line.split("(")[0][4:] for line in block.splitlines() if line.startswith("def ")} == set(CASES)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_an_image_without_a_known_pixel_is_refused_and_not_two_worst_scores(folder):
    metric = find_metric("scores_of_the_page:pixels", (), folder)
    mask = np.array([np.full((2, 2), 255), np.zeros((2, 2), int)])
    with pytest.raises(DataError, match=r"pixels is NaN for row 0$") as refused:
        metric.measure(Rows(outputs={"logits": np.ones((2, 3, 2, 2))}, columns={"mask": mask}, label=None))
    assert "or leave it out" in refused.value.hint
