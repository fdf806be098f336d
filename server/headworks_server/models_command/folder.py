"""`headworks models check` and `list DIR`: what a folder holds and would be served, or what is wrong, without a server.

`check` merges each model's description as a server would, prints it with the origin of each value, and runs the model
on a blank and on a random picture; `list` only tells what lies there.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from headworks_server.errors import ServerError


@click.command(epilog="Example: headworks models check examples/football/models")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Only this model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each model, in lines.")
def check(folder: Path, name: str | None, as_json: bool) -> None:
    """Check that the models of a folder can be served.

    For each model of DIR: what is known of it and from where, as a model.toml, then the outputs of a run, the cost of
    each batch size, and the batch that a lane would aim for; or what is wrong. The exit code is 1 if any is wrong.
    """
    reports = []
    for report in _each(folder, name, _check):
        reports.append(report)
        click.echo(json.dumps(report) if as_json else _page(report))
    sys.exit(0 if all(report["ok"] for report in reports) else 1)


def list_folder(folder: Path, *, as_json: bool) -> None:
    """Print the models of a folder with their versions; the last is the one that is served."""
    for report in _each(folder, None, _look):
        if as_json:
            click.echo(json.dumps(report))
        else:
            click.echo(f"{report['model']}  {', '.join(report['versions']) if report['ok'] else report['error']}")


def _each(folder: Path, name: str | None, look: Any) -> Iterator[dict[str, Any]]:
    """A report for each model; one that is wrong does not hide the others."""
    from headworks_server.config import load_settings
    from headworks_server.models import open_repository
    from headworks_server.telemetry.logs import configure_logs

    configure_logs(level="warning", format="auto")
    try:
        settings = load_settings(None, {"models": folder})
        repository = open_repository(settings)
        names = [name] if name is not None else repository.folders()
    except ServerError as error:
        click.echo(f"headworks models: {error}", err=True)
        sys.exit(2)
    for each in names:
        report = {"model": each, "ok": True}
        try:
            report |= look(repository, settings, each)
        except ServerError as error:
            report |= {"ok": False, "error": str(error)}
        yield report


def _look(repository: Any, settings: Any, name: str) -> dict[str, Any]:  # noqa: ARG001
    return {"versions": list(repository.versions(name))}


def _check(repository: Any, settings: Any, name: str) -> dict[str, Any]:
    from headworks_server.engine.onnxruntime import OnnxRuntimeEngine
    from headworks_server.models import describe

    file = repository.read(name)
    merged = describe(file, settings)
    engine = OnnxRuntimeEngine(merged.spec, hint=settings.hint, threads=settings.lane_threads)
    curve = engine.measure()
    return {
        "version": file.version,
        "versions": list(file.versions),
        "digest": file.digest,
        "values": {key: value.value for key, value in merged.values.items()},
        "origins": {key: value.origin for key, value in merged.values.items()},
        "fixed_batch": merged.spec.fixed_batch,
        "outputs": _outputs(engine),
        "milliseconds": curve.milliseconds(),
        "target": curve.target(),
        "warnings": _warnings(file.path),
    }


def _outputs(engine: Any) -> list[dict[str, Any]]:
    """Name, type, one frame's shape (None where two pictures differ) and range on noise, of each output."""
    import numpy as np

    spec = engine.spec
    positions = spec.fixed_batch or (spec.batch_sizes or (1,))[0]
    memory = np.zeros(spec.input.shape(positions), spec.input.dtype)
    executor = engine.executor(memory)
    blank = [output.shape[1:] for output in executor.run(positions)]
    memory[:] = _noise(spec, memory.shape)
    outputs = executor.run(positions)
    executor.close()
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": [one if one == two else None for one, two in zip(first, output.shape[1:], strict=True)],
            "range": [_finite(output.min()), _finite(output.max())] if output.size else None,
        }
        for tensor, first, output in zip(spec.output.tensors, blank, outputs, strict=True)
    ]


def _noise(spec: Any, shape: tuple[int, ...]) -> Any:
    """Random pixels, as the model's preprocessing leaves them."""
    import numpy as np

    pixels = np.random.default_rng(1).integers(0, 256, shape)
    if spec.input.dtype == "uint8":
        return pixels
    channels = [1, -1, 1, 1] if spec.input.layout == "nchw" else [1, 1, 1, -1]
    before, count = spec.preprocess, spec.input.channels
    mean, std = (np.reshape(each[:count], channels) for each in (before.mean, before.std))
    return (pixels * before.scale - mean) / std


def _finite(number: Any) -> float | None:
    return round(float(number), 6) if math.isfinite(number) else None


def _warnings(path: Path) -> list[str]:
    """What ONNX Runtime would print when it loads the file; a server keeps that out of its log."""
    import onnxruntime

    from headworks_server.engine.onnxruntime import PROVIDERS, session_options

    options = session_options(1)
    options.log_severity_level = 2
    # It writes to the descriptor, past sys.stderr; nothing else runs in this process meanwhile.
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            onnxruntime.InferenceSession(str(path), options, providers=PROVIDERS)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        caught.seek(0)
        text = caught.read().decode(errors="replace")
    return [line.split("] ", 1)[-1] for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if "[W:" in line]


def _page(report: dict[str, Any]) -> str:
    from headworks_server.models.text import toml_text

    if not report["ok"]:
        return f"{report['model']}: not served\n{report['error']}\n"
    values = {key: (value, report["origins"][key]) for key, value in report["values"].items()}
    if values["preprocess.scale"][0] == 1 / 255:
        values["preprocess.scale"] = ("1/255", report["origins"]["preprocess.scale"])
    head = f"{report['model']}: version {report['version']} of {', '.join(report['versions'])}"
    lines = [head, "", toml_text(values), ""]
    for output in report["outputs"]:
        shape = ", ".join("?" if axis is None else str(axis) for axis in output["shape"])
        span = "" if output["range"] is None else ", from {} to {} on noise".format(*output["range"])
        lines.append(f"output {output['name']}: {output['dtype']} [{shape}] for each frame{span}")
    costs = ", ".join(f"{size}: {cost:g} ms" for size, cost in report["milliseconds"].items())
    lines.append(f"batches: {costs}; target {report['target']}")
    if report["warnings"]:
        lines.append(f"the runtime warns {len(report['warnings'])} times, first: {report['warnings'][0]}")
    return "\n".join([*lines, ""])
