"""Which devices run models: the settings' words, checked against this machine."""

import re

import torch

from server.serving_errors import UnusableDeviceError


def choose_devices(devices: str) -> list[str]:
    """The devices that a setting lists with commas, each once.

    Raises: UnusableDeviceError.
    """
    chosen = [choose_device(device.strip()) for device in devices.split(",")]
    if len(set(chosen)) < len(chosen):
        raise UnusableDeviceError(f"the devices {devices!r} name one device twice")
    return chosen


def choose_device(device: str) -> str:
    """The device that runs models; "auto" means a GPU where there is one.

    Raises: UnusableDeviceError.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UnusableDeviceError(f"there is no device {device!r}; choose auto, cpu, cuda or cuda:1 and so on")
    if device != "cpu" and not gpus:
        raise UnusableDeviceError(f"device {device!r} needs a GPU that torch can use, and there is none; choose cpu")
    if device.startswith("cuda:") and int(device[5:]) >= gpus:
        raise UnusableDeviceError(f"there is no device {device!r}; the last one is cuda:{gpus - 1}")
    return device


def device_index(device: str) -> int:
    """The GPU's number; "cuda" alone is the first."""
    return int(device.partition(":")[2] or 0)
