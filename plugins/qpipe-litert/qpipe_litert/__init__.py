"""LiteRT engines: ONNX to `.tflite`, quantized with our own ranges, run with XNNPACK."""
