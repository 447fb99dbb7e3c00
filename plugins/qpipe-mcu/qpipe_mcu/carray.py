"""A model as C source for firmware: one aligned constant array."""

from __future__ import annotations

from pathlib import Path

ARRAY, HEADER = "model_data.c", "model_data.h"
_PER_LINE = 16

_HEADER_TEXT = """\
#ifndef QPIPE_MODEL_DATA_H_
#define QPIPE_MODEL_DATA_H_
#ifdef __cplusplus
extern "C" {
#endif
extern const unsigned char qpipe_model_data[];
extern const unsigned int qpipe_model_data_len;
#ifdef __cplusplus
}
#endif
#endif
"""


def write_c_array(model: bytes, folder: Path) -> tuple[Path, Path]:
    """`model_data.c` and `model_data.h` (C11); tflite-micro wants 16-byte alignment. Paths are relative to `folder`."""
    rows = (model[start : start + _PER_LINE] for start in range(0, len(model), _PER_LINE))
    body = "\n".join("  " + ",".join(f"0x{byte:02x}" for byte in row) + "," for row in rows)
    text = (
        f'#include "{HEADER}"\n\n_Alignas(16) const unsigned char qpipe_model_data[] = {{\n{body}\n}};\n'
        f"const unsigned int qpipe_model_data_len = {len(model)}u;\n"
    )
    (folder / ARRAY).write_text(text, "ascii")
    (folder / HEADER).write_text(_HEADER_TEXT, "ascii")
    return Path(ARRAY), Path(HEADER)
