"""Conversions are made once per graph, and what is kept stays small."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from qpipe_litert import kept
from qpipe_litert.kept import converted_once


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path))


class Converter:
    def __init__(self, data: bytes = b"tflite") -> None:
        self.data = data
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.data


def test_the_same_graph_is_converted_once() -> None:
    converter = Converter()
    assert [converted_once(b"graph", (), converter) for _ in range(3)] == [b"tflite"] * 3
    assert converter.calls == 1


def test_another_graph_or_another_option_is_another_file() -> None:
    converter = Converter()
    for graph, keep in ((b"graph", ()), (b"other", ()), (b"graph", ("input",))):
        converted_once(graph, keep, converter)
    assert converter.calls == 3


def test_a_failed_conversion_keeps_nothing() -> None:
    def fails() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        converted_once(b"graph", (), fails)
    assert list(kept.folder().glob("*.tflite")) == []
    assert converted_once(b"graph", (), Converter()) == b"tflite"


def test_two_at_once_convert_once() -> None:
    converter = Converter()
    workers = [threading.Thread(target=converted_once, args=(b"graph", (), converter)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert converter.calls == 1


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LIMIT_BYTES", 250)
    for name in (b"a", b"b", b"c"):
        converted_once(name, (), Converter(bytes(100)))
    assert len(list(kept.folder().glob("*.tflite"))) == 2
    again = Converter(bytes(100))
    converted_once(b"c", (), again)
    assert again.calls == 0
    converted_once(b"a", (), again)
    assert again.calls == 1


def test_a_folder_that_cannot_be_written_converts_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "file"))
    converter = Converter()
    assert [converted_once(b"graph", (), converter) for _ in range(2)] == [b"tflite"] * 2
    assert converter.calls == 2
