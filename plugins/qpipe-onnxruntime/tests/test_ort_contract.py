"""The suite that every backend passes, for each kind of target of this one."""

from __future__ import annotations

import pytest
from qpipe_onnxruntime.backend import OnnxRuntimeBackend

from qpipe.measure.cpu import VNNI, read_cpu
from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract

ISA = {"cpu-x86-avx2": ("avx2",), "cpu-x86-vnni": (VNNI,)}
ARCH = {"cpu-x86-avx2": "x86_64", "cpu-x86-vnni": "x86_64", "cpu-arm64": "aarch64"}


class TestOnnxRuntime(BackendContract):
    recipes = ("none", "int8")

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return OnnxRuntimeBackend()

    @pytest.fixture(scope="class", params=["cpu-local", "cpu-x86-avx2", "cpu-x86-vnni", "cpu-arm64"])
    @classmethod
    def target(cls, request):
        name = request.param
        if name == "cpu-arm64" and read_cpu().arch != "x86_64":
            pytest.skip("this is an arm64 machine: cpu-local is that target here")
        return Target(name=name, backend="onnxruntime", arch=ARCH.get(name, ""), isa=ISA.get(name, ()))

    def test_build_says_what_it_made(self, case, target):
        """An engine for another machine is refused here, by name; on its own it is as the suite says."""
        if target.name == "cpu-arm64":
            assert case.built.requires[0].value == "aarch64"
            assert any("aarch64" in note for note in case.built.placement.notes)
        else:
            super().test_build_says_what_it_made(case)
