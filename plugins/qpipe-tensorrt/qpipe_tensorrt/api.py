# ruff: noqa: D102 - the vendor documents its members
"""The part of NVIDIA's Python API that this plugin uses, as types: no `.pyi` ships with either product.

Each Protocol has the name of the vendor's class; a contract test holds every member against the installed package.
Source: NVIDIA TensorRT 11 Python API reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Member(Protocol):
    """A member of one of the vendor's enumerations."""

    @property
    def name(self) -> str: ...
    def __int__(self) -> int: ...


class ITensor(Protocol):
    """A tensor of a network."""

    name: str
    dtype: Member

    @property
    def shape(self) -> Sequence[int]: ...


class ILayer(Protocol):
    """A layer of a network, before any fusion."""

    name: str
    metadata: str

    @property
    def type(self) -> Member: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    def get_input(self, index: int) -> ITensor | None: ...
    def get_output(self, index: int) -> ITensor: ...


class INetworkDefinition(Protocol):
    """A parsed network; strongly typed in TensorRT 11."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    def get_layer(self, index: int) -> ILayer: ...
    def get_input(self, index: int) -> ITensor: ...


class ParserError(Protocol):
    """What the parser has against a node."""

    def code(self) -> Member: ...
    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Reads an ONNX file into a network."""

    @property
    def num_errors(self) -> int: ...
    def parse_from_file(self, model: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IOptimizationProfile(Protocol):
    """Shapes of the dynamic inputs that one engine profile serves."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None: ...


class IHostMemory(Protocol):
    """Bytes that the builder made; readable as a buffer."""

    @property
    def nbytes(self) -> int: ...


class ITimingCache(Protocol):
    """Measured tactics; without effect in TensorRT for RTX."""

    def serialize(self) -> IHostMemory: ...


class IBuilderConfig(Protocol):
    """How to build. `num_compute_capabilities` and `set_compute_capability` are TensorRT for RTX's alone."""

    profiling_verbosity: Member
    builder_optimization_level: int
    hardware_compatibility_level: Member
    progress_monitor: object
    num_compute_capabilities: int

    def set_compute_capability(self, capability: Member, index: int) -> bool: ...
    def set_flag(self, flag: Member) -> None: ...
    def clear_flag(self, flag: Member) -> None: ...
    def set_memory_pool_limit(self, pool: Member, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class Builder(Protocol):
    """Builds engines."""

    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class EngineInspector(Protocol):
    """Tells what is inside an engine."""

    def get_engine_information(self, format: Member) -> str: ...


class IExecutionContext(Protocol):
    """One running instance of an engine."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class IRuntimeConfig(Protocol):
    """How a context runs; these members are TensorRT for RTX's alone."""

    dynamic_shapes_kernel_specialization_strategy: Member
    cuda_graph_strategy: Member


class ICudaEngine(Protocol):
    """A deserialized engine."""

    weight_streaming_budget_v2: int

    @property
    def num_optimization_profiles(self) -> int: ...
    @property
    def num_io_tensors(self) -> int: ...
    @property
    def device_memory_size_v2(self) -> int: ...
    def get_weight_streaming_automatic_budget(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Member: ...
    def get_tensor_location(self, name: str) -> Member: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Member: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...
    def create_execution_context(self, how: object = ...) -> IExecutionContext | None: ...
    def create_engine_inspector(self) -> EngineInspector | None: ...


class Runtime(Protocol):
    """Loads engines. Never make one without a GPU: `deserialize_cuda_engine` then segfaults."""

    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class LoggerType(Protocol):
    """The vendor's logger class; subclassed."""

    Severity: object

    def __call__(self) -> object: ...


class Vendor(Protocol):
    """The vendor's module, `tensorrt` or `tensorrt_rtx`."""

    __version__: str
    ILogger: LoggerType
    IProgressMonitor: type
    BuilderFlag: object
    ComputeCapability: object
    CudaGraphStrategy: object
    DynamicShapesKernelSpecializationStrategy: object
    ExecutionContextAllocationStrategy: object
    HardwareCompatibilityLevel: object
    LayerInformationFormat: object
    LayerType: object
    DataType: object
    MemoryPoolType: object
    ProfilingVerbosity: object

    def Builder(self, logger: object) -> Builder: ...  # noqa: N802 - the vendor's name
    def OnnxParser(self, network: INetworkDefinition, logger: object) -> OnnxParser: ...  # noqa: N802
    def Runtime(self, logger: object) -> Runtime: ...  # noqa: N802


SURFACE = (
    ITensor,
    ILayer,
    INetworkDefinition,
    ParserError,
    OnnxParser,
    IOptimizationProfile,
    IHostMemory,
    ITimingCache,
    IBuilderConfig,
    Builder,
    EngineInspector,
    IExecutionContext,
    IRuntimeConfig,
    ICudaEngine,
    Runtime,
)
"""Classes whose members the contract test looks up."""

RTX_ONLY = (
    "num_compute_capabilities",
    "set_compute_capability",
    "create_runtime_config",
    "dynamic_shapes_kernel_specialization_strategy",
    "cuda_graph_strategy",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
)
"""Members and enumerations that the plugin asks of TensorRT for RTX alone."""

ENUMERATIONS: dict[str, tuple[str, ...]] = {
    "BuilderFlag": ("TF32", "SPARSE_WEIGHTS", "STRICT_NANS", "WEIGHT_STREAMING", "VERSION_COMPATIBLE"),
    "CudaGraphStrategy": ("DISABLED", "WHOLE_GRAPH_CAPTURE"),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "TensorIOMode": ("INPUT",),
    "TensorLocation": ("HOST",),
    "HardwareCompatibilityLevel": ("NONE", "SAME_COMPUTE_CAPABILITY", "AMPERE_PLUS"),
    "LayerInformationFormat": ("JSON",),
    "MemoryPoolType": ("WORKSPACE",),
    "ProfilingVerbosity": ("DETAILED",),
    "LayerType": (
        *("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "DEQUANTIZE"),
        *("SHUFFLE", "SLICE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"),
    ),
    "DataType": ("FLOAT", "HALF", "BF16", "INT64", "INT32", "INT8", "UINT8", "INT4", "FP8", "FP4", "BOOL"),
    "ILogger.Severity": ("INTERNAL_ERROR", "ERROR", "WARNING"),
}
"""Members of the vendor's enumerations that the plugin names."""
