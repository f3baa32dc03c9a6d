"""On what training and scoring run, and how it is kept repeatable."""

from __future__ import annotations

import gc
import os
import platform
from pathlib import Path
from typing import Final

import monai
import torch

import pouw
from pouw.errors import ConfigError
from pouw.ml.requests import DeviceName, Engine

# On x86, then on ARM, as Linux names them.
_CPUINFO: Final = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU part", "CPU variant", "CPU revision"),
)


def choose_device(name: DeviceName) -> torch.device:
    """The named device; "auto" takes a CUDA device where there is one. ConfigError if absent."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("there is no CUDA device here", hint="choose device cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def torch_device(engine: Engine, rank: int = 0) -> torch.device:
    """The device of the process of that rank; ConfigError where there is none."""
    device = choose_device(engine.device)
    if device.type == "cpu":
        return device
    if rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {rank + 1} has no GPU, there are {torch.cuda.device_count()}",
            hint="ask for as many processes as there are GPUs",
        )
    return torch.device("cuda", rank)


def settle_imports() -> None:
    """Take what was imported so far out of garbage collection: it stays until the process ends.

    Otherwise Python searches a million objects of torch and MONAI again when it ends (1.5 s).
    """
    gc.freeze()


def make_repeatable(device: torch.device, threads: int) -> None:
    """Fix the number of threads and the choice of algorithms, process-wide.

    On a CPU the operations used here are deterministic for a fixed number of threads.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # cuBLAS is only deterministic with a fixed workspace, which it reads when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False


def describe_software() -> str:
    """The versions that a result depends on."""
    return f"pouw {pouw.__version__}, torch {torch.__version__}, monai {monai.__version__}"


def describe_device(device: torch.device, threads: int) -> str:
    """The hardware that a result depends on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {capability}, {_processor()}, {threads} thread(s)"


def _processor() -> str:
    """Maker, family, model and stepping: what libraries choose their kernels and blocks by."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    fields = dict(reversed([[part.strip() for part in line.partition(":")[::2]] for line in lines]))
    return " ".join(fields[key] for key in _CPUINFO if key in fields) or "unknown processor"
