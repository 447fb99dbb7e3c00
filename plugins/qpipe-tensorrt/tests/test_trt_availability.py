import platform
from dataclasses import replace

import pytest
from qpipe_tensorrt.availability import judge
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.driver import Gpu, NoGpu
from qpipe_tensorrt.options import read_options

from qpipe.errors import TargetError
from qpipe.records.engine import Ready, Unavailable

NONE = NoGpu(reason="no NVIDIA driver")
ADA = Gpu(index=0, name="NVIDIA GeForce RTX 4090", capability="8.9", driver="580.65")
HOPPER = Gpu(index=0, name="NVIDIA H200", capability="9.0", driver="580.65")


def look(target, version="1.7.1.116", gpus=NONE):
    return judge(target, read_options(target), version, gpus)


def test_rtx_builds_without_a_gpu_and_says_why_it_does_not_run(target):
    found = look(target("8.9"))
    assert found.build == Ready()
    assert found.run == Unavailable(reason="no NVIDIA driver")
    assert ("tensorrt_rtx", "1.7.1.116") in found.toolchain
    assert found.fingerprint == ""


def test_the_right_gpu_runs_and_is_the_fingerprint(target):
    found = look(target("8.9"), gpus=(ADA,))
    assert found.run == Ready()
    assert found.fingerprint == "NVIDIA GeForce RTX 4090 (compute capability 8.9), driver 580.65"


def test_another_gpu_is_named(target):
    found = look(target("8.6"), gpus=(ADA,))
    assert found.build == Ready()
    assert isinstance(found.run, Unavailable)
    assert "NVIDIA GeForce RTX 4090 (8.9)" in found.run.reason
    assert "8.6" in found.run.reason
    assert not found.run.impossible


def test_no_package_is_named_with_the_command(target):
    found = look(target(), version=None)
    assert isinstance(found.build, Unavailable)
    assert found.build.reason == "the package tensorrt_rtx is not installed"
    assert "qpipe-tensorrt[rtx]" in found.build.hint


def test_an_old_package_is_named(target):
    found = look(target("8.0", product="tensorrt"), version="10.9.0", gpus=(ADA,))
    assert "tensorrt 10.9.0 is installed; 11 or later" in found.build.reason


def test_enterprise_needs_its_gpu_to_build(target):
    wanted = target("9.0", product="tensorrt")
    assert look(wanted, version="11.4.0").build == Unavailable(reason="no NVIDIA driver")
    assert "another GPU" in look(wanted, version="11.4.0", gpus=(ADA,)).build.reason
    ready = look(wanted, version="11.4.0", gpus=(HOPPER,))
    assert ready.build == ready.run == Ready()
    assert ("gpu", "NVIDIA H200") in ready.toolchain


@pytest.mark.parametrize(
    ("capability", "options", "reason", "hint"),
    [
        ("9.0", {}, "tensorrt-rtx does not serve compute capability 9.0", "product: tensorrt"),
        ("10.0", {}, "tensorrt-rtx does not serve compute capability 10.0", "product: tensorrt"),
        ("8.9", {"also": ["10.3"]}, "does not serve compute capability 10.3", "product: tensorrt"),
        ("5.0", {}, "does not serve compute capability 5.0", "serves 7.5"),
        ("8.6", {"scheme": "tensorrt-fp8"}, "compute capability 8.6 has no FP8", "int8"),
        ("8.9", {"scheme": "tensorrt-fp8", "also": ["8.6"]}, "compute capability 8.6 has no FP8", "int8"),
        ("8.6", {"precisions": ["fp8", "int8"]}, "compute capability 8.6 has no FP8", "int8"),
        ("8.9", {"precisions": ["fp16"]}, "lack int8", "another scheme"),
        ("8.9", {"version_compatible": True}, "no `version_compatible` builds", "product: tensorrt"),
        ("8.9", {"hardware_compatibility": "ampere-plus"}, "no `hardware_compatibility` builds", "also"),
        ("9.0", {"product": "tensorrt", "also": ["8.9"]}, "no `also` builds", "ampere-plus"),
        ("9.0", {"product": "tensorrt", "reproducible": True}, "no `reproducible` builds", "timing cache"),
    ],
)
def test_what_no_machine_can_do_is_found_before_work(target, capability, options, reason, hint):
    found = look(target(capability, **options))
    assert isinstance(found.build, Unavailable)
    assert found.build.impossible
    assert found.build == found.run
    assert reason in found.build.reason
    assert hint in found.build.hint


def test_a_board_is_not_built_for_elsewhere(target):
    other = "aarch64" if platform.machine() != "aarch64" else "x86_64"
    found = look(replace(target("8.7", product="tensorrt"), arch=other), version="11.4.0", gpus=(HOPPER,))
    assert f"the target is {other}" in found.build.reason


def test_simulation_runs_without_a_gpu_and_says_so(target):
    found = look(target(simulate=True))
    assert found.run == Ready()
    assert found.fingerprint.startswith("simulated on ")


def test_a_foreign_scheme_is_refused(target):
    with pytest.raises(TargetError, match="scheme `ort-x86-vnni` is none of TensorRT's"):
        TensorRT().check(target(scheme="ort-x86-vnni"))


def test_schemes_say_what_the_kernels_do(target):
    scheme = TensorRT().scheme(target("8.9"))
    assert (scheme.activation, scheme.activation_symmetric, scheme.quantize_bias) == ("int8", True, False)
    assert "ConvTranspose" not in scheme.ops
    assert "ConvTranspose" in TensorRT().scheme(target("9.0", product="tensorrt")).ops
    assert TensorRT().scheme(target("8.9", scheme="tensorrt-fp8")).activation == "float8e4m3fn"


def test_check_is_light():
    import subprocess
    import sys

    code = (
        "import sys; from qpipe_tensorrt.plugin import qpipe_backends; from qpipe.records.target import Target\n"
        "b = next(iter(qpipe_backends()))\n"
        "options = {'product': 'tensorrt-rtx', 'compute_capability': '8.9'}\n"
        "b.check(Target(name='t', backend='tensorrt', options=options))\n"
        "heavy = {'tensorrt_rtx', 'tensorrt', 'onnx', 'onnxruntime', 'pandas', 'scipy', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
