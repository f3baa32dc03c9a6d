"""Scoring on a Ray cluster: one actor a seat, each with a confined process of its own.

Weights and cases go into Ray's object store once; a machine fetches what its seats are asked for
and keeps it in a folder of its own, so nothing has to be shared but the cluster. The test set is
public once it is scored. Whoever can reach the cluster can run code on it (Ray has no accounts):
keep it on a private network.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pouw.errors import ConfigError, ProcessError
from pouw.files import atomic_file
from pouw.ml.layout import CaseFile, read_opened
from pouw.ml.requests import ScoringAnswer, ScoringRequest
from pouw.roles.processes import MODEL_SECONDS, Crashed, ScoringProcess
from pouw.roles.scorers import ScoringPool, SeatLost

_TICK_SECONDS = 1.0
_INSTALL_HINT = "pip install 'pouw[ray]'"
_CONNECT_HINT = "start a cluster with `ray start --head`, and name its host:port"

Boxed = list[Any]
"""A reference to the object store in a list: Ray does not fetch it before it is asked for."""


class SeatActor:
    """What runs on a machine of the cluster: files beside a ``ScoringProcess``."""

    def __init__(self, device: str, model_seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pouw-seat-")
        self._root = Path(self._folder.name)
        log = self._root / "scoring.log"
        self._process = ScoringProcess(log, device, model_seconds)
        self._process.warm()
        self._model: Path | None = None
        self._data: Path | None = None
        self._asked = ""

    def ready(self) -> int | None:
        """The process that scores here, once there is one."""
        return self._process.pid

    def score(self, line: str, files: dict[str, Boxed], model: str | None, data: str) -> str:
        """The answer to one request, as a line; its paths are replaced by those of this machine.

        ``files``: what it needs, by relative path; what is here already is not fetched again.
        ``model``: the weights among them, where there are any; ``data``: the data set's folder.
        Both are kept until there are others.
        """
        path, folder = self._root / model if model else None, self._root / data
        if self._model is not None and self._model != path:
            self._model.unlink(missing_ok=True)
        if self._data is not None and self._data != folder:
            shutil.rmtree(self._data, ignore_errors=True)
        self._model, self._data = path, folder
        for relative, boxed in files.items():
            _fetch(self._root / relative, boxed)
        request = ScoringRequest.parse(line)
        here = {"model": path, "data": folder, "predictions": None}
        self._asked = line
        self._process.ask(request.model_copy(update=here))
        while (answer := self._process.answer(_TICK_SECONDS)) is None:
            pass
        return answer.line()

    def cancel(self, line: str) -> None:
        """Let this request end soon, if it is under way."""
        if line == self._asked:
            self._process.cancel()


def _fetch(path: Path, boxed: Boxed) -> None:
    import ray

    if not path.exists():
        with atomic_file(path, sync_folder=False) as file:
            content: Any = ray.get(boxed[0])
            file.write(content)


class Shelf:
    """Weights and cases in the object store: put there once, whoever asks for them."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._model: tuple[tuple[str, Path], str, Boxed] | None = None
        self._data: Path | None = None
        self._folder = ""
        self._cases: dict[str, CaseFile] = {}
        self._boxes: dict[Path, Boxed] = {}

    def model(self, request: ScoringRequest) -> tuple[str, Boxed] | tuple[None, None]:
        """Where the request's weights belong, and a reference to them."""
        if request.model is None:
            return None, None
        key = (request.id, request.model)
        if self._model is None or self._model[0] != key:
            name = f"models/{next(self._numbers)}.safetensors"
            self._model = (key, name, _put(request.model))
        return self._model[1:]

    def cases(self, request: ScoringRequest) -> tuple[str, dict[str, Boxed]]:
        """The data set's folder, and the files of the request's cases by path below the root."""
        if self._data != request.data:
            self._boxes.clear()
            self._cases = {case.name: case for case in read_opened(request.data).test}
            self._data, self._folder = request.data, f"data-{next(self._numbers)}"
        wanted = [request.data / "dataset.json"]
        for name in request.share.cases if request.share else self._cases:
            case = self._cases[name]
            wanted += [*case.images, *([case.label] if case.label else [])]
        files = {}
        for path in wanted:
            if path not in self._boxes:
                self._boxes[path] = _put(path)
            files[f"{self._folder}/{path.relative_to(request.data)}"] = self._boxes[path]
        return self._folder, files


def _put(path: Path) -> Boxed:
    import ray

    return [ray.put(path.read_bytes())]


class RaySeat:
    """``Scoring`` on one actor, which Ray starts again where its machine has gone."""

    def __init__(self, start: Any, shelf: Shelf) -> None:
        self._shelf = shelf
        self.actor = start()
        self._ping = self.actor.ready.remote()
        self._line = ""
        self._asked: Any = None

    def warm(self) -> None:
        """Nothing: the actor warmed up its process when it began."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or the actor is not up (again) yet."""
        return self._asked is not None or not self._up()

    def _up(self) -> bool:
        import ray

        if self._ping is None:
            return True
        ready, _ = ray.wait([self._ping], timeout=0)
        if not ready:
            return False
        try:
            ray.get(self._ping)
        except ray.exceptions.RayError:
            self._ping = self.actor.ready.remote()
            return False
        self._ping = None
        return True

    def ask(self, request: ScoringRequest) -> None:
        """Begin one request; ProcessError where another is under way."""
        if self._asked is not None:
            raise ProcessError(f"{request.id} was asked while another is being scored")
        model, weights = self._shelf.model(request)
        folder, files = self._shelf.cases(request)
        self._line = request.line()
        if model is not None and weights is not None:
            files[model] = weights
        self._asked = self.actor.score.remote(self._line, files, model, folder)

    def answer(self, timeout_seconds: float = 0.0) -> ScoringAnswer | None:
        """The answer, or None; SeatLost where the machine is gone."""
        import ray

        if self._asked is None:
            return None
        ready, _ = ray.wait([self._asked], timeout=timeout_seconds)
        if not ready:
            return None
        asked, self._asked = self._asked, None
        try:
            line: str = ray.get(asked)
        except ray.exceptions.RayTaskError as error:
            kind = Crashed if isinstance(error.cause, Crashed) else ProcessError
            raise kind(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            self._ping = self.actor.ready.remote()
            raise SeatLost(f"a machine of the cluster is gone: {error}") from error
        return ScoringAnswer.parse(line)

    def cancel(self) -> None:
        """Let the request under way end soon."""
        if self._asked is not None:
            self.actor.cancel.remote(self._line)

    def end(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self.actor)


def cluster_scoring(address: str, device: str, model_seconds: float = MODEL_SECONDS) -> ScoringPool:
    """A pool with a seat for every processor (or every GPU) of the cluster.

    ConfigError where Ray is not installed, the cluster is not there, or has not one seat.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("scoring on a cluster needs Ray", hint=_INSTALL_HINT) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {error}", hint=_CONNECT_HINT) from error
    needs, unit = ({"num_gpus": 1}, "GPU") if device == "cuda" else ({"num_cpus": 1}, "CPU")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(int(resources.get(unit, 0)) for resources in nodes)
    if count == 0:
        raise ConfigError(f"no machine of the cluster at {address} has a {unit}")
    # Two calls at once: scoring, and its cancellation.
    remote = ray.remote(SeatActor).options(max_restarts=-1, max_concurrency=2, **needs)
    shelf = Shelf()
    return ScoringPool(
        [RaySeat(lambda: remote.remote(device, model_seconds), shelf) for _ in range(count)]
    )
