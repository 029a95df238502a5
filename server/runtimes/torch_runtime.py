"""The reference runtime: the checkpoint's own features and network in torch, on a CPU or a CUDA device."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from model.backbones.mamba import MambaMixer
from model.checkpoint import Checkpoint, CheckpointError, load
from model.precision import Precision, to_precision
from model.selective_scan import default_implementation
from server.runtimes.base import BatchResult, DeviceLostError, DeviceOutOfMemoryError, RuntimeInfo
from server.runtimes.shortage import is_shortage
from server.runtimes.two_stages import TwoStages

MOST_BATCHES = 4  # each has one core, and needs the one interpreter between any two operators
SCAN_PACKAGES = {"cpu": "numba", "cuda": "mamba_ssm"}  # what runs the scan; other implementations go by their name


class TorchRuntime(TwoStages):
    """One checkpoint on its device; a reduced precision is that of its matrix products, features stay float32.

    On a CPU of few cores batches run side by side, a core each, and wait for nobody, where one on all cores waits at
    the end of every operator. Measured with aum-tiny on two cores: 191 windows a second against 151.
    """

    ready_batches, independent_batches = 0, 1  # of one interpreter

    def __init__(self, checkpoint: Checkpoint, device: str, precision: str = "float32") -> None:
        super().__init__(checkpoint.features, device)
        self._threads = torch.get_num_threads()
        few = self._device.type == "cpu" and self._threads <= MOST_BATCHES
        self.most_batches = self._threads if few else 1
        self._network = to_precision(checkpoint.network.to(self._device), cast(Precision, precision))
        scans = any(isinstance(module, MambaMixer) for module in self._network.modules())
        implementation = default_implementation(self._device)
        scan = SCAN_PACKAGES.get(implementation, implementation) if scans else None
        self.info = RuntimeInfo(runtime="torch", precision=precision, device=str(self._device), scan=scan)

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """Tags waveforms float32 (B, S), valid for `lengths` int64 (B,) samples; logits (B, C), embeddings (B, D).

        Raises: DeviceOutOfMemoryError; DeviceLostError.
        """
        _use_threads(self._threads if batches == 1 else 1)
        try:
            return self._run(waveforms, lengths)
        except RuntimeError as error:
            if not is_shortage(error):
                if isinstance(error, torch.AcceleratorError):  # CUDA repeats such an error at every later call
                    raise DeviceLostError(str(error)) from error
                raise
            shortage = str(error)
        # Raised out here, where the failed batch's tensors are held by no traceback any more.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceOutOfMemoryError(shortage)

    def close(self) -> None:
        """Drops the network and empties the device's cache."""
        del self._features, self._network
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The network's logits (B, C), and the features (B, D) that its head made them from."""
        embeddings = self._network.embed(log_mel)  # type: ignore[operator, union-attr]
        logits = self._network.head(embeddings)  # type: ignore[operator, union-attr]
        return logits.float().cpu().numpy(), embeddings.float().cpu().numpy()


def open_torch(folder: Path, device: str, precision: str, threads: int, weights_sha256: str) -> TorchRuntime:
    """The runtime of the checkpoint in a folder, with so many threads; for processes of its own.

    It has run a batch, on one thread: what that loads is shared when the process divides itself, which no other thread
    of an operator would outlive.

    Raises: CheckpointError, for other weights than those too.
    """
    torch.set_num_threads(threads)
    checkpoint = load(folder, device)
    if checkpoint.weights_sha256 != weights_sha256:
        raise CheckpointError(f"the weights in {folder} are not those that were there; load the model again")
    runtime = TorchRuntime(checkpoint, device, precision)
    waveform = checkpoint.golden.waveform.numpy()[None]
    runtime.run(waveform, np.array([waveform.shape[1]]), batches=2)
    return runtime


def _use_threads(count: int) -> None:
    """Gives this thread's operators so many threads; other threads that have run one keep theirs."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
