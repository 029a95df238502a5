"""A stand-in for the parts of TensorRT 10's Python module that Hark calls, which writes down every call.

Names and arguments are those of the 10.x API reference; a call with other arguments fails here as it would there.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

VERSION = "10.9.0.34"


class StandIn(ModuleType):
    """Put it into `sys.modules["tensorrt"]`; `calls` is what was asked for, `fail` names the step that goes wrong."""

    def __init__(self, fail: str = "") -> None:
        super().__init__("tensorrt")
        self.__version__ = VERSION
        self.fail = fail
        self.calls: list[tuple[Any, ...]] = []
        self.phases: list[str] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        self.Logger = type("Logger", (), {"WARNING": "warning", "__init__": lambda self, severity: None})
        self.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
        self.Builder = lambda logger: _Builder(self)
        self.OnnxParser = lambda network, logger: _Parser(self)
        self.Runtime = lambda logger: _Runtime(self)


class _Builder:
    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def create_network(self, flags: int) -> str:
        self.trt.calls.append(("create_network", flags))
        return "network"

    def create_builder_config(self) -> "_Config":
        return _Config(self.trt)

    def create_optimization_profile(self) -> "_Profile":
        return _Profile(self.trt)

    def build_serialized_network(self, network: str, config: "_Config") -> bytearray | None:
        assert (network, isinstance(config, _Config)) == ("network", True)
        monitor = config.progress_monitor
        monitor.phase_start("Building Engine", None, 3)
        monitor.phase_start("Tactic selection", "Building Engine", 9)
        assert monitor.step_complete("Building Engine", 0) is True
        monitor.phase_finish("Building Engine")
        return None if self.trt.fail == "build" else bytearray(b"plan")


class _Parser:
    num_errors = 1

    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def parse_from_file(self, path: str) -> bool:
        self.trt.calls.append(("parse_from_file", path))
        return self.trt.fail != "parse"

    def get_error(self, index: int) -> str:
        return f"error {index}: no importer"


class _Profile:
    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.trt.calls.append(("set_shape", input, min, opt, max))


class _Config:
    progress_monitor: Any = None

    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def set_memory_pool_limit(self, pool: str, pool_size: int) -> None:
        self.trt.calls.append(("set_memory_pool_limit", pool, pool_size))

    def clear_flag(self, flag: str) -> None:
        self.trt.calls.append(("clear_flag", flag))

    def add_optimization_profile(self, profile: _Profile) -> int:
        return -1 if self.trt.fail == "profile" else 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> "_TimingCache | None":
        return None if serialized_timing_cache == b"half a fi" else _TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: "_TimingCache", ignore_mismatch: bool) -> bool:
        self.trt.calls.append(("set_timing_cache", cache.data, ignore_mismatch))
        return cache.data != b"another GPU's"


class _TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytearray:
        return bytearray(self.data + b"+measured")


class _Runtime:
    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "_Engine | None":
        self.trt.calls.append(("deserialize_cuda_engine",))
        return None if self.trt.fail == "deserialise" else _Engine(self.trt)


class _Engine:
    def __init__(self, trt: StandIn) -> None:
        self.trt = trt

    def create_execution_context(self) -> "_Context | None":
        self.trt.calls.append(("create_execution_context",))
        return None if self.trt.fail == "context" else _Context(self.trt)


class _Context:
    def __init__(self, trt: StandIn) -> None:
        self.trt = trt
        self.batch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.trt.calls.append(("set_input_shape", name, shape))
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return self.batch, {"logits": 6, "embeddings": 32}[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert isinstance(memory, int)
        self.trt.calls.append(("set_tensor_address", name))
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.trt.calls.append(("execute_async_v3", stream_handle))
        return self.trt.fail != "execute"
