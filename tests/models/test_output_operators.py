import onnx
import pytest
from networks import network

from qpipe.models import output_operators


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        ("y = Sigmoid(x)", "Sigmoid"),
        ("s = Sigmoid(x) f = Flatten(s) y = Identity(f)", "Sigmoid"),
        ("y = Identity(x)", ""),
    ],
)
def test_what_computes_an_output(tmp_path, body, operator):
    onnx.save(network("(float[N,4] x) => (float[N,4] y)", body, {}, 17), tmp_path / "net.onnx")
    assert output_operators(tmp_path / "net.onnx") == {"y": operator}
