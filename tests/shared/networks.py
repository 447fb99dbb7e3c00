"""Small networks that a test writes as text: given their arrays, saved, run, compared."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser


def network(head, body, arrays, opset=17):
    """A graph in onnx's own text form, e.g. `(float[N,8] x) => (float[N,M] y)` and `y = MatMul(x, w)`."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {head} {{ {body} }}')
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def write_network(path, head, body, arrays, opset=17):
    onnx.save(network(head, body, arrays, opset), path)
    return path


def run(path, rows, *, optimized=None, plain=False):
    """All outputs in onnxruntime; `plain`: as the graph is written; `optimized`: where to leave what it became."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, rows)


def sqnr_db(reference, output):
    """10·log10(Σ ref² / Σ (ref − out)²); equal tensors are some 300 dB apart."""
    noise = float(np.square(reference - output).sum())
    return 10 * np.log10(float(np.square(reference).sum()) / max(noise, 1e-30))
