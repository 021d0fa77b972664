"""ONNX graphs through onnxruntime (extra ``onnx``): observation → action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError, said
from dydiff_env.policies.exported import in_batches


class OnnxPolicy:
    """A graph whose first input is the (B, O) observation and whose first output is the (B, A) action.

    Args:
        source: the model's bytes (kept: sessions do not pickle).
    """

    def __init__(self, source: bytes) -> None:
        import onnxruntime

        self.source = source
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # a wrong width is reported by us, once
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise DyDiffError(
                f"onnxruntime cannot read the file: {said(error)}",
                "Check that it is an ONNX model, exported for the installed onnxruntime.",
            ) from error
        observation = self.session.get_inputs()[0]
        self.name = observation.name
        self.batch = observation.shape[0] if isinstance(observation.shape[0], int) else None  # a fixed batch size, or None
        self.dtype = np.float64 if "double" in observation.type else np.float32

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O), in blocks of the batch size where that is fixed."""

        def run(rows: Tensor) -> Tensor:
            return torch.as_tensor(self.session.run(None, {self.name: rows.numpy().astype(self.dtype)})[0])

        return in_batches(run, observations.cpu(), self.batch or 1, self.batch)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def load(path: Path) -> OnnxPolicy:
    """The policy in an ONNX file.

    Raises:
        DyDiffError: without onnxruntime, or when it cannot read the file.
    """
    try:
        import onnx

        return OnnxPolicy(onnx.load(path).SerializeToString())  # with the weights that torch puts in a file beside it
    except ImportError:
        raise DyDiffError(
            f"{path} is an ONNX model, and onnx and onnxruntime are not both installed.", 'pip install "dydiff-env[onnx]"'
        ) from None
    except DyDiffError:
        raise
    except Exception as error:  # a damaged file, or no weights: onnx has many names for them
        raise DyDiffError(
            f"{path} cannot be read as an ONNX model: {said(error)}",
            "Keep the .data file that was exported with it beside it, or export it again.",
        ) from error
