from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_onnxruntime.machine import can_run, choose_scheme, notes, requirements
from qpipe_onnxruntime.options import Options

from qpipe.errors import EngineError, TargetError
from qpipe.measure.cpu import VNNI, Cpu, read_cpu
from qpipe.plugins.backend import Backend
from qpipe.plugins.options import read_options
from qpipe.quant.schemes import ORT_X86_AVX2
from qpipe.records.engine import Ready, Requirement, Unavailable
from qpipe.records.target import Target

HASWELL = Cpu(model="Xeon E5", arch="x86_64", flags=frozenset({"avx", "avx2", "fma"}), count=2)
ICELAKE = replace(HASWELL, model="Xeon 8380", flags=HASWELL.flags | {"avx512f", "avx512_vnni"})
SAPPHIRE = replace(ICELAKE, model="Xeon 8480", flags=ICELAKE.flags | {"amx_tile", "amx_int8"})
ALDERLAKE = replace(HASWELL, model="i7-12700", flags=HASWELL.flags | {"avx_vnni"})
GRAVITON = Cpu(model="Neoverse", arch="aarch64", flags=frozenset({"asimd", "asimddp"}), count=2)

LOCAL = Target(name="cpu-local", backend="onnxruntime")
VNNI_TARGET = Target(name="cpu-x86-vnni", backend="onnxruntime", arch="x86_64", isa=(VNNI,))
AMX_TARGET = Target(name="cpu-x86-amx", backend="onnxruntime", arch="x86_64", isa=("avx512_vnni", "amx_int8"))
AVX2_TARGET = Target(name="cpu-x86-avx2", backend="onnxruntime", arch="x86_64", isa=("avx2",))
ARM_TARGET = Target(name="cpu-arm64", backend="onnxruntime", arch="aarch64")


@pytest.mark.parametrize(
    ("target", "cpu", "scheme"),
    [
        (LOCAL, HASWELL, "ort-x86-avx2"),
        (LOCAL, ICELAKE, "ort-x86-vnni"),
        (LOCAL, ALDERLAKE, "ort-x86-vnni"),
        (LOCAL, GRAVITON, "ort-arm64"),
        (LOCAL, SAPPHIRE, "ort-x86-amx"),
        (VNNI_TARGET, HASWELL, "ort-x86-vnni"),
        (VNNI_TARGET, SAPPHIRE, "ort-x86-vnni"),
        (AMX_TARGET, ICELAKE, "ort-x86-amx"),
        (AVX2_TARGET, ICELAKE, "ort-x86-avx2"),
        (ARM_TARGET, ICELAKE, "ort-arm64"),
        (replace(LOCAL, scheme="ort-x86-avx2"), ICELAKE, "ort-x86-avx2"),
    ],
)
def test_the_scheme_is_the_targets_else_the_machines(target, cpu, scheme):
    assert choose_scheme(target, cpu).name == scheme


def test_seven_bit_weights_where_products_saturate():
    assert choose_scheme(AVX2_TARGET, ICELAKE).weight_bits == 7
    assert choose_scheme(VNNI_TARGET, ICELAKE).weight_bits == 8


def test_another_machine_is_named_with_what_it_lacks():
    found = can_run(VNNI_TARGET, HASWELL)
    assert isinstance(found, Unavailable)
    assert not found.impossible
    assert found.reason == ("cpu-x86-vnni needs avx512_vnni or avx_vnni; this CPU (Xeon E5) has avx fma avx2")


@pytest.mark.parametrize("cpu", [ICELAKE, ALDERLAKE])
def test_either_vnni_will_do(cpu):
    assert isinstance(can_run(VNNI_TARGET, cpu), Ready)


def test_arm64_builds_here_and_runs_there():
    if read_cpu().arch != "x86_64":
        ready = can_run(ARM_TARGET, read_cpu())
        assert isinstance(ready, Ready)
    else:
        found = OnnxRuntimeBackend().check(ARM_TARGET)
        assert isinstance(found.build, Ready)
        assert isinstance(found.run, Unavailable)
        assert found.run.reason == "cpu-arm64 needs aarch64; this machine is x86_64"


def test_a_vnni_machine_says_so_for_the_avx2_target():
    assert "avx512_vnni" in notes(AVX2_TARGET, ICELAKE)[0]
    assert notes(AVX2_TARGET, HASWELL) == ()
    assert notes(LOCAL, ICELAKE) == ()


def test_a_machine_that_hides_its_flags_is_not_said_to_lack_them(tmp_path):
    hidden = read_cpu(tmp_path, arch="x86_64")  # what opens as no file: a sandbox
    assert (hidden.model, hidden.flags) == ("unknown", frozenset())
    assert choose_scheme(LOCAL, hidden) == ORT_X86_AVX2
    assert notes(LOCAL, hidden) == (
        "this machine does not tell its CPU's flags (/proc/cpuinfo): it counts as one without VNNI",
    )
    refused = can_run(AVX2_TARGET, hidden)
    assert "avx2; this machine does not tell its CPU's flags" in refused.reason


def test_local_int8_engines_require_what_their_scheme_supposes():
    assert Requirement(what="isa_any", value=VNNI) in requirements(LOCAL, ICELAKE, quantized=True)
    assert requirements(LOCAL, ICELAKE, quantized=False) == (Requirement(what="arch", value="x86_64"),)
    assert Requirement(what="isa", value="avx2") in requirements(AVX2_TARGET, ICELAKE, quantized=True)


def test_an_engine_of_another_machine_is_refused(kit, local):
    engine = kit.engine(kit.prepared(kit.network()), local)
    strange = replace(engine, requires=(*engine.requires, Requirement(what="isa_any", value="sve2|no_such_flag")))
    with pytest.raises(EngineError, match="needs the CPU flag sve2 or no_such_flag, which this CPU lacks"):
        OnnxRuntimeBackend().open(strange, local)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"graph_optimisation": "all"}, "no option 'graph_optimisation'; did you mean 'graph_optimization'"),
        ({"graph_optimization": "most"}, "graph_optimization: "),
        ({"memory_arena": "maybe"}, "memory_arena: "),
    ],
)
def test_options_are_checked_and_named(options, words):
    with pytest.raises(TargetError, match=f"target cpu-local.*{words}"):
        OnnxRuntimeBackend().check(replace(LOCAL, options=options))


def test_options_have_defaults_and_values():
    assert read_options(Options, LOCAL) == Options()
    read = read_options(Options, replace(LOCAL, options={"graph_optimization": "extended", "memory_arena": False}))
    assert (read.graph_optimization, read.memory_arena) == ("extended", False)


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(TargetError, match="no scheme 'tensorrt'") as caught:
        OnnxRuntimeBackend().check(replace(LOCAL, scheme="tensorrt"))
    assert "ort-x86-vnni" in caught.value.hint


def test_check_is_light_and_fingerprints_the_device():
    code = (
        "import sys\n"
        "from qpipe.records.target import Target\n"
        "from qpipe_onnxruntime.backend import OnnxRuntimeBackend\n"
        "found = OnnxRuntimeBackend().check(Target(name='t', backend='onnxruntime'))\n"
        "assert not {'onnxruntime', 'onnx'} & set(sys.modules), 'heavy'\n"
        "print(found.fingerprint)\n"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert read_cpu().model in shown.stdout
    assert "onnxruntime 1." in shown.stdout


def test_it_is_a_backend():
    assert isinstance(OnnxRuntimeBackend(), Backend)
