"""What keeps a model, or one way of running it, from being served; each message is one sentence.

ServingError
├── UnusableDeviceError         this machine, or this torch, has no such device
├── RuntimeRefusedError         one runtime cannot serve the model here; the next one is tried
│   ├── RuntimeDriftError       its logits do not agree with the golden clip
│   └── RuntimeUnavailableError a package or the hardware for it is missing
│       └── BrokenExportError   an export's folder cannot be used
└── ModelSettingsError          two models of one name, or a queue too short for a model's window
"""


class ServingError(Exception):
    """Base of what keeps a model from being served; the message says why in one sentence."""


class UnusableDeviceError(ServingError):
    """The device of the settings does not exist here."""


class RuntimeRefusedError(ServingError):
    """One runtime cannot serve the model."""


class RuntimeDriftError(RuntimeRefusedError):
    """A runtime's logits are too far from the golden ones."""


class RuntimeUnavailableError(RuntimeRefusedError):
    """What a runtime needs is not here."""


class BrokenExportError(RuntimeUnavailableError):
    """An export's folder is incomplete, unreadable, or was made from other weights."""


class ModelSettingsError(ServingError):
    """The settings cannot serve this model."""
