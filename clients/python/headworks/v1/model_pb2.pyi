from headworks.v1 import frame_pb2 as _frame_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_COLD: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_DEGRADED: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_COLD: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_DEGRADED: ModelState
MODEL_STATE_FAILED: ModelState

class ModelStatus(_message.Message):
    __slots__ = ("info", "state", "detail", "resident_bytes", "leases", "pinned", "current", "backends", "curve", "target_batch", "residency")
    INFO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    TARGET_BATCH_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    info: _frame_pb2.ModelInfo
    state: ModelState
    detail: str
    resident_bytes: int
    leases: int
    pinned: bool
    current: bool
    backends: _containers.RepeatedScalarFieldContainer[str]
    curve: _containers.RepeatedCompositeFieldContainer[CurvePoint]
    target_batch: int
    residency: ResidencyCounters
    def __init__(self, info: _Optional[_Union[_frame_pb2.ModelInfo, _Mapping]] = ..., state: _Optional[_Union[ModelState, str]] = ..., detail: _Optional[str] = ..., resident_bytes: _Optional[int] = ..., leases: _Optional[int] = ..., pinned: bool = ..., current: bool = ..., backends: _Optional[_Iterable[str]] = ..., curve: _Optional[_Iterable[_Union[CurvePoint, _Mapping]]] = ..., target_batch: _Optional[int] = ..., residency: _Optional[_Union[ResidencyCounters, _Mapping]] = ...) -> None: ...

class CurvePoint(_message.Message):
    __slots__ = ("batch_size", "seconds")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    seconds: float
    def __init__(self, batch_size: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class ResidencyCounters(_message.Message):
    __slots__ = ("hits", "loads", "failures", "evictions", "falls", "reloads", "last_load_seconds")
    HITS_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    FALLS_FIELD_NUMBER: _ClassVar[int]
    RELOADS_FIELD_NUMBER: _ClassVar[int]
    LAST_LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    hits: int
    loads: int
    failures: int
    evictions: int
    falls: int
    reloads: int
    last_load_seconds: float
    def __init__(self, hits: _Optional[int] = ..., loads: _Optional[int] = ..., failures: _Optional[int] = ..., evictions: _Optional[int] = ..., falls: _Optional[int] = ..., reloads: _Optional[int] = ..., last_load_seconds: _Optional[float] = ...) -> None: ...

class ModelMemory(_message.Message):
    __slots__ = ("budget_bytes", "used_bytes", "over_bytes", "thrashing")
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OVER_BYTES_FIELD_NUMBER: _ClassVar[int]
    THRASHING_FIELD_NUMBER: _ClassVar[int]
    budget_bytes: int
    used_bytes: int
    over_bytes: int
    thrashing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, budget_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., over_bytes: _Optional[int] = ..., thrashing: _Optional[_Iterable[str]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "memory")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    memory: ModelMemory
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., memory: _Optional[_Union[ModelMemory, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class PinModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ...) -> None: ...

class PinModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class UnpinModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ...) -> None: ...

class UnpinModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class SwapModelRequest(_message.Message):
    __slots__ = ("model", "back")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACK_FIELD_NUMBER: _ClassVar[int]
    model: _frame_pb2.ModelSelector
    back: bool
    def __init__(self, model: _Optional[_Union[_frame_pb2.ModelSelector, _Mapping]] = ..., back: bool = ...) -> None: ...

class SwapModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelStatus
    def __init__(self, model: _Optional[_Union[ModelStatus, _Mapping]] = ...) -> None: ...

class GetModelStatisticsRequest(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_frame_pb2.ModelSelector]
    def __init__(self, models: _Optional[_Iterable[_Union[_frame_pb2.ModelSelector, _Mapping]]] = ...) -> None: ...

class GetModelStatisticsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatistics]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatistics, _Mapping]]] = ...) -> None: ...

class ModelStatistics(_message.Message):
    __slots__ = ("info", "batch_sizes", "executed_seconds", "ledger", "residency")
    class BatchSizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    INFO_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    info: _frame_pb2.ModelInfo
    batch_sizes: _containers.ScalarMap[int, int]
    executed_seconds: float
    ledger: _frame_pb2.Ledger
    residency: ResidencyCounters
    def __init__(self, info: _Optional[_Union[_frame_pb2.ModelInfo, _Mapping]] = ..., batch_sizes: _Optional[_Mapping[int, int]] = ..., executed_seconds: _Optional[float] = ..., ledger: _Optional[_Union[_frame_pb2.Ledger, _Mapping]] = ..., residency: _Optional[_Union[ResidencyCounters, _Mapping]] = ...) -> None: ...
