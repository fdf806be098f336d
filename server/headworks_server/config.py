"""Every setting of the server, in one validated model; `headworks serve` reads it once, `app.py` hands the parts out.

A setting comes from a flag, else from the environment (HEADWORKS_PORT, HEADWORKS_SLEEPING__DECODERS), else from a TOML
file, else from the default below. The bounds of the server are set here and nowhere else. Unknown names are errors.

Where gRPC may listen (`host`); * writes a warning into the log:

    host                        nothing   tokens only   TLS only   TLS and tokens, or client certificates
    this machine only           yes       yes           yes        yes
    reached by others           refused   refused       yes *      yes
    the same with `insecure`    yes *     yes *         yes *      yes

Tokens alone are refused because plain text gives them to everybody on the way. Where others reach the host, `admin`
needs tokens or client certificates, `insecure` or not. /metrics is plain HTTP that anybody may read, whatever gRPC has;
it has an address of its own (`metrics_host`), this machine's unless `metrics_insecure` or `insecure` allows another.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from headworks_server.errors import ConfigError
from headworks_server.sources import ENV_PREFIX, Sources

METRICS_OFF = -1
Port = Annotated[int, Field(ge=0, le=65535)]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _split(value: object) -> object:
    """A flag and a variable hold a list as one text."""
    return [part for each in value.split(",") if (part := each.strip())] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class SleepingSettings(BaseModel):
    """The stand-in backend: a device lane whose decoders and engine sleep. For tests and benchmarks only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    decoders: int = Field(default=16, ge=1, le=256, description="Native decoder threads.")
    decode_ms: float = Field(default=5.0, ge=0, description="How long a decode sleeps.")
    slow_fraction: float = Field(
        default=0.0, ge=0, le=1, description="The share of decodes that sleep slow_ms instead."
    )
    slow_ms: float = Field(default=45.0, ge=0, description="How long a slow decode sleeps.")
    seed: int = Field(default=1, ge=0, description="Seed of the choice of slow decodes.")
    engine_base_ms: float = Field(default=2.0, ge=0, description="How long a batch sleeps, whatever its size.")
    engine_frame_ms: float = Field(
        default=0.4, ge=0, description="How much longer a batch sleeps for each of its frames."
    )
    max_batch: int = Field(default=32, ge=1, le=256, description="Positions of a batch buffer.")
    target: int = Field(default=16, ge=1, le=256, description="The batch size that admission aims for.")
    fail_from: int = Field(default=0, ge=0, description="The first batch that fails, counted from 0.")
    fail_count: int = Field(default=0, ge=0, description="How many batches fail from there; 0 is none.")

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        if self.target > self.max_batch:
            raise ValueError(f"target: expected at most max_batch = {self.max_batch}, got {self.target}")
        return self


class FailingSettings(BaseModel):
    """The backend that fails: ONNX Runtime on the CPU, until it is told to fail. For tests of a chain only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load: bool = Field(default=False, description="Whether loads fail.")
    loads: int = Field(default=0, ge=0, description="How many loads fail, the first of the process; 0 is all of them.")
    from_batch: int = Field(default=0, ge=0, description="The first batch of a load that fails, from 1; 0 is none.")

    @property
    def chained(self) -> bool:
        """Whether it may stand in a chain."""
        return self.load or self.from_batch > 0


class Settings(BaseSettings):
    """The settings of one server process.

    Constructed directly it takes only its arguments and the defaults; `load_settings` reads the other sources.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", allow_inf_nan=False
    )

    models: Path | None = Field(default=None, description="Folder of models, <name>/model.onnx each.")

    watch_seconds: float = Field(
        default=0.0, ge=0, description="Look for new, changed and removed models this often; 0 never does."
    )

    plans: Path | None = Field(
        default=None,
        description="Folder where prepared models are kept; none prepares none. A restart opens them sooner.",
    )

    # Declared before the hosts, which are judged by them.
    tls_cert: Path | None = Field(
        default=None, description="The server's certificate chain, PEM; with tls_key it turns TLS on."
    )
    tls_key: Path | None = Field(default=None, description="The certificate's private key, PEM without a passphrase.")
    tls_client_ca: Path | None = Field(
        default=None, description="Authorities, PEM; clients must show a certificate that one of them signed."
    )
    tokens_file: Path | None = Field(
        default=None, description="Bearer tokens, `name:token` or `token` a line; clients must send one of them."
    )
    insecure: bool = Field(
        default=False, description="Allow hosts that other machines reach without TLS, for gRPC and metrics."
    )
    metrics_insecure: bool = Field(
        default=False, description="Allow a metrics host that other machines reach; /metrics has no TLS."
    )

    host: str = Field(default="127.0.0.1", min_length=1, description="Address that gRPC listens on.")
    port: Port = Field(default=50051, description="Port of gRPC; 0 takes a free one.")
    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="Address that /metrics listens on.")
    metrics_port: int = Field(
        default=9464, ge=METRICS_OFF, le=65535, description="Port of /metrics; 0 takes a free one, -1 turns it off."
    )

    # Declared after the host, which it is judged by.
    admin: bool = Field(
        default=False,
        description="Serve ModelService, which loads, unloads and swaps models: on this machine only, or to clients "
        "with a token or a certificate.",
    )
    admins: Names = Field(
        default=(),
        description="Who may use ModelService: names in the tokens file or in client certificates; none lets in "
        "everybody who may stream.",
    )

    backend: Literal["onnxruntime", "sleeping", "null"] = Field(
        default="onnxruntime",
        description="What runs the model; sleeping and null are stand-ins for tests and benchmarks.",
    )
    hint: Literal["throughput", "latency"] = Field(
        default="throughput",
        description="throughput: many lanes of one thread each; latency: one lane with all threads.",
    )
    backend_chain: Names = Field(
        default=(),
        description="What models from files are tried on, in order: onnxruntime-cuda, onnxruntime-cpu; none is those "
        "that the machine has. A model.toml may say otherwise.",
    )
    engine_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Most bytes of all loaded models together; by default half of the memory free at start.",
    )
    lanes: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="CPU lanes; by default one a core, and a single one under the hint latency.",
    )
    max_batch: int = Field(
        default=8, ge=1, le=64, description="Largest batch of a CPU lane, for models of any batch size."
    )

    score_threshold: float = Field(default=0.25, ge=0, le=1, description="Boxes are kept above this score.")
    iou_threshold: float = Field(
        default=0.45, ge=0, le=1, description="Of two boxes of a class that overlap more than this, the better stays."
    )
    max_detections: int = Field(default=300, ge=1, le=30_000, description="Most boxes of one frame.")
    decode_scale: Annotated[Literal["auto", "1"], BeforeValidator(lambda value: "1" if value == 1 else value)] = Field(
        default="auto",
        description="auto decodes JPEG at 1/2, 1/4 or 1/8 where the model's input is that small; 1 never.",
    )

    max_streams: int = Field(default=1024, ge=1, le=100_000, description="Most streams open at once.")
    max_frame_bytes: int = Field(default=16_000_000, ge=1, le=1 << 30, description="Most bytes of one encoded frame.")
    max_frame_pixels: int = Field(
        default=33_177_600, ge=1, le=1 << 30, description="Most pixels of one frame; 7680 x 4320 just fits."
    )
    waiting_bytes: int = Field(default=1 << 30, ge=1, description="Most bytes of all waiting frames together.")
    idle_timeout_seconds: float = Field(
        default=15.0, gt=0, description="A stream that says nothing for this long is closed."
    )
    lease_seconds: float = Field(
        default=30.0, gt=0, description="A stream that sends no frame for this long lets its model be evicted."
    )
    drain_grace_seconds: float = Field(default=10.0, ge=0, description="How long streams may go on after SIGTERM.")

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="Least severe log line that is written."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto writes text on a terminal, else JSON, a line each."
    )

    sleeping: SleepingSettings = Field(default=SleepingSettings(), description="Options of the backend sleeping.")
    failing: FailingSettings = Field(default=FailingSettings(), description="Options of the backend failing.")
    null_detections: int = Field(default=25, ge=0, le=30_000, description="Boxes in each result of the backend null.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (the signature is pydantic's)
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,  # noqa: ARG003
        **named: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: `load_settings` merges the sources itself, to know where a wrong value came from."""
        return (init_settings,)

    @field_validator("host")
    @classmethod
    def _host_is_safe(cls, host: str, info: ValidationInfo) -> str:
        given = info.data
        if is_loopback(host) or given.get("insecure") or given.get("tls_cert"):
            return host
        why = ", since tokens in plain text are read by everybody on the way" if given.get("tokens_file") else ""
        raise ValueError(f"expected a loopback address, TLS (tls_cert and tls_key), or insecure = true{why}")

    @field_validator("admin")
    @classmethod
    def _admin_is_safe(cls, admin: bool, info: ValidationInfo) -> bool:
        given = info.data
        host = given.get("host")  # none where it is refused itself
        known = given.get("tokens_file") or given.get("tls_client_ca")
        if admin and host is not None and not is_loopback(host) and not known:
            raise ValueError(
                f"expected tokens_file or tls_client_ca with a host that others reach ({host!r}), also under insecure"
            )
        return admin

    @field_validator("metrics_host")
    @classmethod
    def _metrics_host_is_safe(cls, host: str, info: ValidationInfo) -> str:
        if not is_loopback(host) and not info.data.get("insecure") and not info.data.get("metrics_insecure"):
            raise ValueError("expected a loopback address, or metrics_insecure = true (/metrics has no TLS)")
        return host

    @model_validator(mode="after")
    def _certificates_are_whole(self) -> Self:
        for name, other in (("tls_key", "tls_cert"), ("tls_cert", "tls_key"), ("tls_cert", "tls_client_ca")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise ValueError(f"{name}: expected a file, since {other} is set, got none")
        return self

    @model_validator(mode="after")
    def _admins_have_names(self) -> Self:
        if self.admins and self.tokens_file is None and self.tls_client_ca is None:
            raise ValueError("admins: expected tokens_file or tls_client_ca, which names clients, got neither")
        return self

    @model_validator(mode="after")
    def _models_can_be_moved(self) -> Self:
        if self.admin and self.backend != "onnxruntime":
            raise ValueError(f"admin: expected the backend onnxruntime, since stand-ins stay, got {self.backend!r}")
        return self

    @model_validator(mode="after")
    def _models_are_given(self) -> Self:
        if self.backend == "onnxruntime" and self.models is None:
            raise ValueError("models: expected a folder of models, got none")
        return self

    @model_validator(mode="after")
    def _a_frame_may_wait(self) -> Self:
        if self.waiting_bytes < self.max_frame_bytes:
            fact = f"max_frame_bytes = {self.max_frame_bytes}, got {self.waiting_bytes}"
            raise ValueError(f"waiting_bytes: expected at least {fact}")
        return self

    @property
    def address(self) -> str:
        """Where gRPC listens, as `host:port`; an IPv6 address is put in brackets."""
        host = self.host.strip("[]")
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def lane_count(self) -> int:
        """CPU lanes, resolved."""
        if self.lanes is not None:
            return self.lanes
        return usable_cores() if self.hint == "throughput" else 1

    @property
    def lane_threads(self) -> int:
        """Threads that run a model in one lane."""
        return 1 if self.hint == "throughput" else max(1, usable_cores() // self.lane_count)


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings: `overrides` (the flags; None means not given) before HEADWORKS_* before the TOML file.

    Relative paths in the file are meant from the file's folder.

    Raises:
        ConfigError: a line for each wrong setting: where it came from, its name, what was expected, what was found.
    """
    return merge_settings(Sources(Settings, file=file, flags=overrides or {}))


def merge_settings(sources: Sources) -> Settings:
    """The settings that those sources give. Raises ConfigError as `load_settings` does."""
    try:
        return Settings(**sources.merged())
    except ValidationError as error:
        raise ConfigError("\n".join(sources.explain(error))) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
