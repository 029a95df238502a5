"""What can go wrong in an export; each message is one sentence.

ExportError(ValueError)
  NotExportableError     a network whose selective scan the targets cannot express, or a precision a target lacks
  ParityError            the exported model does not give the checkpoint's logits; nothing is kept
MissingPackageError      a target's package is not installed (ImportError)
"""


class ExportError(ValueError):
    """A checkpoint cannot be exported; the message says why in one sentence."""


class NotExportableError(ExportError):
    """The network has no form in the target."""


class ParityError(ExportError):
    """The exported model computes something else than the checkpoint."""


class MissingPackageError(ImportError):
    """A package of the target is missing; the message says which extra brings it."""
