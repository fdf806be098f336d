import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_JPEG: _ClassVar[Encoding]
    ENCODING_PNG: _ClassVar[Encoding]
    ENCODING_BGR24: _ClassVar[Encoding]
    ENCODING_WEBP: _ClassVar[Encoding]
    ENCODING_RGB24: _ClassVar[Encoding]
    ENCODING_GRAY8: _ClassVar[Encoding]
    ENCODING_NV12: _ClassVar[Encoding]
    ENCODING_I420: _ClassVar[Encoding]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_REPLACED_BY_NEWER: _ClassVar[DropReason]
    DROP_REASON_QUEUE_FULL: _ClassVar[DropReason]
    DROP_REASON_DEADLINE: _ClassVar[DropReason]
    DROP_REASON_RATE_LIMIT: _ClassVar[DropReason]
    DROP_REASON_MODEL_LOADING: _ClassVar[DropReason]
    DROP_REASON_OUTBOX_OVERFLOW: _ClassVar[DropReason]
    DROP_REASON_DRAINING: _ClassVar[DropReason]
    DROP_REASON_CANCELLED: _ClassVar[DropReason]

class DropStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_STAGE_UNSPECIFIED: _ClassVar[DropStage]
    DROP_STAGE_INGRESS: _ClassVar[DropStage]
    DROP_STAGE_BEFORE_DECODE: _ClassVar[DropStage]
    DROP_STAGE_BEFORE_BATCH: _ClassVar[DropStage]
    DROP_STAGE_AFTER_INFER: _ClassVar[DropStage]

class FrameErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_ERROR_CODE_UNSPECIFIED: _ClassVar[FrameErrorCode]
    FRAME_ERROR_CODE_UNDECODABLE: _ClassVar[FrameErrorCode]
    FRAME_ERROR_CODE_TOO_LARGE: _ClassVar[FrameErrorCode]
    FRAME_ERROR_CODE_UNSUPPORTED: _ClassVar[FrameErrorCode]
    FRAME_ERROR_CODE_ENGINE_FAILED: _ClassVar[FrameErrorCode]
    FRAME_ERROR_CODE_OVER_CREDIT: _ClassVar[FrameErrorCode]

class CloseReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSE_REASON_UNSPECIFIED: _ClassVar[CloseReason]
    CLOSE_REASON_END: _ClassVar[CloseReason]
    CLOSE_REASON_DRAINED: _ClassVar[CloseReason]
    CLOSE_REASON_IDLE_TIMEOUT: _ClassVar[CloseReason]
    CLOSE_REASON_PROTOCOL_ERROR: _ClassVar[CloseReason]
    CLOSE_REASON_CANCELLED: _ClassVar[CloseReason]
ENCODING_UNSPECIFIED: Encoding
ENCODING_JPEG: Encoding
ENCODING_PNG: Encoding
ENCODING_BGR24: Encoding
ENCODING_WEBP: Encoding
ENCODING_RGB24: Encoding
ENCODING_GRAY8: Encoding
ENCODING_NV12: Encoding
ENCODING_I420: Encoding
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_REPLACED_BY_NEWER: DropReason
DROP_REASON_QUEUE_FULL: DropReason
DROP_REASON_DEADLINE: DropReason
DROP_REASON_RATE_LIMIT: DropReason
DROP_REASON_MODEL_LOADING: DropReason
DROP_REASON_OUTBOX_OVERFLOW: DropReason
DROP_REASON_DRAINING: DropReason
DROP_REASON_CANCELLED: DropReason
DROP_STAGE_UNSPECIFIED: DropStage
DROP_STAGE_INGRESS: DropStage
DROP_STAGE_BEFORE_DECODE: DropStage
DROP_STAGE_BEFORE_BATCH: DropStage
DROP_STAGE_AFTER_INFER: DropStage
FRAME_ERROR_CODE_UNSPECIFIED: FrameErrorCode
FRAME_ERROR_CODE_UNDECODABLE: FrameErrorCode
FRAME_ERROR_CODE_TOO_LARGE: FrameErrorCode
FRAME_ERROR_CODE_UNSUPPORTED: FrameErrorCode
FRAME_ERROR_CODE_ENGINE_FAILED: FrameErrorCode
FRAME_ERROR_CODE_OVER_CREDIT: FrameErrorCode
CLOSE_REASON_UNSPECIFIED: CloseReason
CLOSE_REASON_END: CloseReason
CLOSE_REASON_DRAINED: CloseReason
CLOSE_REASON_IDLE_TIMEOUT: CloseReason
CLOSE_REASON_PROTOCOL_ERROR: CloseReason
CLOSE_REASON_CANCELLED: CloseReason

class StreamFramesRequest(_message.Message):
    __slots__ = ("open", "frame", "ping", "end")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frame: Frame
    ping: Ping
    end: End
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ...) -> None: ...

class StreamFramesResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[ServerEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[ServerEvent, _Mapping]]] = ...) -> None: ...

class ServerEvent(_message.Message):
    __slots__ = ("opened", "result", "dropped", "frame_error", "credit", "notice", "pong", "closed")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FRAME_ERROR_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    result: Result
    dropped: Dropped
    frame_error: FrameError
    credit: Credit
    notice: Notice
    pong: Pong
    closed: Closed
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ..., frame_error: _Optional[_Union[FrameError, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., notice: _Optional[_Union[Notice, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("stream_name", "models", "drop_policy", "max_in_flight", "deadline_ms", "weight", "max_fps", "result")
    STREAM_NAME_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DROP_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_FPS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    stream_name: str
    models: _containers.RepeatedCompositeFieldContainer[ModelSelector]
    drop_policy: DropPolicy
    max_in_flight: int
    deadline_ms: int
    weight: int
    max_fps: float
    result: ResultOptions
    def __init__(self, stream_name: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelSelector, _Mapping]]] = ..., drop_policy: _Optional[_Union[DropPolicy, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., weight: _Optional[int] = ..., max_fps: _Optional[float] = ..., result: _Optional[_Union[ResultOptions, _Mapping]] = ...) -> None: ...

class ModelSelector(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class DropPolicy(_message.Message):
    __slots__ = ("latest", "bounded", "every_frame")
    LATEST_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_FIELD_NUMBER: _ClassVar[int]
    EVERY_FRAME_FIELD_NUMBER: _ClassVar[int]
    latest: LatestPolicy
    bounded: BoundedPolicy
    every_frame: EveryFramePolicy
    def __init__(self, latest: _Optional[_Union[LatestPolicy, _Mapping]] = ..., bounded: _Optional[_Union[BoundedPolicy, _Mapping]] = ..., every_frame: _Optional[_Union[EveryFramePolicy, _Mapping]] = ...) -> None: ...

class LatestPolicy(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BoundedPolicy(_message.Message):
    __slots__ = ("depth", "drop")
    class DropSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DROP_SIDE_UNSPECIFIED: _ClassVar[BoundedPolicy.DropSide]
        DROP_SIDE_OLDEST: _ClassVar[BoundedPolicy.DropSide]
        DROP_SIDE_NEWEST: _ClassVar[BoundedPolicy.DropSide]
    DROP_SIDE_UNSPECIFIED: BoundedPolicy.DropSide
    DROP_SIDE_OLDEST: BoundedPolicy.DropSide
    DROP_SIDE_NEWEST: BoundedPolicy.DropSide
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    depth: int
    drop: BoundedPolicy.DropSide
    def __init__(self, depth: _Optional[int] = ..., drop: _Optional[_Union[BoundedPolicy.DropSide, str]] = ...) -> None: ...

class EveryFramePolicy(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResultOptions(_message.Message):
    __slots__ = ("form", "score_threshold", "max_detections", "top_k")
    class Form(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORM_UNSPECIFIED: _ClassVar[ResultOptions.Form]
        FORM_DETECTIONS: _ClassVar[ResultOptions.Form]
        FORM_CLASSIFICATIONS: _ClassVar[ResultOptions.Form]
        FORM_RAW_TENSORS: _ClassVar[ResultOptions.Form]
    FORM_UNSPECIFIED: ResultOptions.Form
    FORM_DETECTIONS: ResultOptions.Form
    FORM_CLASSIFICATIONS: ResultOptions.Form
    FORM_RAW_TENSORS: ResultOptions.Form
    FORM_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    form: ResultOptions.Form
    score_threshold: float
    max_detections: int
    top_k: int
    def __init__(self, form: _Optional[_Union[ResultOptions.Form, str]] = ..., score_threshold: _Optional[float] = ..., max_detections: _Optional[int] = ..., top_k: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("frame_id", "capture_time", "encoding", "width", "height", "data")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    capture_time: _timestamp_pb2.Timestamp
    encoding: Encoding
    width: int
    height: int
    data: bytes
    def __init__(self, frame_id: _Optional[int] = ..., capture_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Opened(_message.Message):
    __slots__ = ("stream_id", "drop_policy", "max_in_flight", "frames_allowed", "deadline_ms", "weight", "models", "limits")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    DROP_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    drop_policy: DropPolicy
    max_in_flight: int
    frames_allowed: int
    deadline_ms: int
    weight: int
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    limits: Limits
    def __init__(self, stream_id: _Optional[int] = ..., drop_policy: _Optional[_Union[DropPolicy, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., frames_allowed: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., weight: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "version", "generation", "digest", "labels", "backend", "input_width", "input_height")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    INPUT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    INPUT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    generation: int
    digest: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    backend: str
    input_width: int
    input_height: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., generation: _Optional[int] = ..., digest: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., backend: _Optional[str] = ..., input_width: _Optional[int] = ..., input_height: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_frame_bytes", "max_frame_pixels")
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_PIXELS_FIELD_NUMBER: _ClassVar[int]
    max_frame_bytes: int
    max_frame_pixels: int
    def __init__(self, max_frame_bytes: _Optional[int] = ..., max_frame_pixels: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("frame_id", "capture_time", "source_width", "source_height", "outputs", "batch_size", "deadline_missed", "timings")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MISSED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    capture_time: _timestamp_pb2.Timestamp
    source_width: int
    source_height: int
    outputs: _containers.RepeatedCompositeFieldContainer[Output]
    batch_size: int
    deadline_missed: bool
    timings: Timings
    def __init__(self, frame_id: _Optional[int] = ..., capture_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_width: _Optional[int] = ..., source_height: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Output, _Mapping]]] = ..., batch_size: _Optional[int] = ..., deadline_missed: bool = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("model", "version", "generation", "backend", "detections", "classifications", "raw_tensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    RAW_TENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    generation: int
    backend: str
    detections: Detections
    classifications: Classifications
    raw_tensors: RawTensors
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., generation: _Optional[int] = ..., backend: _Optional[str] = ..., detections: _Optional[_Union[Detections, _Mapping]] = ..., classifications: _Optional[_Union[Classifications, _Mapping]] = ..., raw_tensors: _Optional[_Union[RawTensors, _Mapping]] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("detections",)
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    def __init__(self, detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("x1", "y1", "x2", "y2", "score", "class_id")
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    class_id: int
    def __init__(self, x1: _Optional[float] = ..., y1: _Optional[float] = ..., x2: _Optional[float] = ..., y2: _Optional[float] = ..., score: _Optional[float] = ..., class_id: _Optional[int] = ...) -> None: ...

class Classifications(_message.Message):
    __slots__ = ("classifications",)
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    classifications: _containers.RepeatedCompositeFieldContainer[Classification]
    def __init__(self, classifications: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("class_id", "score")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    score: float
    def __init__(self, class_id: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class RawTensors(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[RawTensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[RawTensor, _Mapping]]] = ...) -> None: ...

class RawTensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("waited_us", "decoded_us", "batched_us", "executed_us", "postprocessed_us")
    WAITED_US_FIELD_NUMBER: _ClassVar[int]
    DECODED_US_FIELD_NUMBER: _ClassVar[int]
    BATCHED_US_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_US_FIELD_NUMBER: _ClassVar[int]
    POSTPROCESSED_US_FIELD_NUMBER: _ClassVar[int]
    waited_us: int
    decoded_us: int
    batched_us: int
    executed_us: int
    postprocessed_us: int
    def __init__(self, waited_us: _Optional[int] = ..., decoded_us: _Optional[int] = ..., batched_us: _Optional[int] = ..., executed_us: _Optional[int] = ..., postprocessed_us: _Optional[int] = ...) -> None: ...

class DropCount(_message.Message):
    __slots__ = ("reason", "stage", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    stage: DropStage
    count: int
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ..., stage: _Optional[_Union[DropStage, str]] = ..., count: _Optional[int] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("first_frame_id", "last_frame_id", "counts")
    FIRST_FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    first_frame_id: int
    last_frame_id: int
    counts: _containers.RepeatedCompositeFieldContainer[DropCount]
    def __init__(self, first_frame_id: _Optional[int] = ..., last_frame_id: _Optional[int] = ..., counts: _Optional[_Iterable[_Union[DropCount, _Mapping]]] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("frame_id", "code", "detail")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    code: FrameErrorCode
    detail: str
    def __init__(self, frame_id: _Optional[int] = ..., code: _Optional[_Union[FrameErrorCode, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("frames_allowed",)
    FRAMES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    frames_allowed: int
    def __init__(self, frames_allowed: _Optional[int] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "detail", "grace_ms", "first_frame_id", "generation", "model", "model_info")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Notice.Kind]
        KIND_DRAINING: _ClassVar[Notice.Kind]
        KIND_DEGRADED: _ClassVar[Notice.Kind]
        KIND_RESTORED: _ClassVar[Notice.Kind]
        KIND_MODEL_CHANGED: _ClassVar[Notice.Kind]
    KIND_UNSPECIFIED: Notice.Kind
    KIND_DRAINING: Notice.Kind
    KIND_DEGRADED: Notice.Kind
    KIND_RESTORED: Notice.Kind
    KIND_MODEL_CHANGED: Notice.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_INFO_FIELD_NUMBER: _ClassVar[int]
    kind: Notice.Kind
    detail: str
    grace_ms: int
    first_frame_id: int
    generation: int
    model: str
    model_info: ModelInfo
    def __init__(self, kind: _Optional[_Union[Notice.Kind, str]] = ..., detail: _Optional[str] = ..., grace_ms: _Optional[int] = ..., first_frame_id: _Optional[int] = ..., generation: _Optional[int] = ..., model: _Optional[str] = ..., model_info: _Optional[_Union[ModelInfo, _Mapping]] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("ledger", "reason", "detail")
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ledger: Ledger
    reason: CloseReason
    detail: str
    def __init__(self, ledger: _Optional[_Union[Ledger, _Mapping]] = ..., reason: _Optional[_Union[CloseReason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("received", "results", "drops", "errors")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    received: int
    results: int
    drops: _containers.RepeatedCompositeFieldContainer[DropCount]
    errors: int
    def __init__(self, received: _Optional[int] = ..., results: _Optional[int] = ..., drops: _Optional[_Iterable[_Union[DropCount, _Mapping]]] = ..., errors: _Optional[int] = ...) -> None: ...

class InferFrameRequest(_message.Message):
    __slots__ = ("model", "frame", "result")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    model: ModelSelector
    frame: Frame
    result: ResultOptions
    def __init__(self, model: _Optional[_Union[ModelSelector, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., result: _Optional[_Union[ResultOptions, _Mapping]] = ...) -> None: ...

class InferFrameResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: Result
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...
