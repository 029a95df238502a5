"""What can go wrong when a published checkpoint is converted; each message is one sentence that says what to do.

ConversionError
  UnreadableFileError    missing, truncated, or not a file of tensors
  UnsafePickleError      a pickle that would run code
  WrongFamilyError       another family's file
  TensorMismatchError    tensors missing, unknown, or of another shape; the message names them
  BrokenWeightsError     NaN or infinity in the weights
  MissingFlagError       a fact that the file does not hold; the message names the flag
  LabelsError            labels that do not fit the head, or cannot be read
"""

from collections.abc import Iterable

LISTED = 8


class ConversionError(ValueError):
    """A checkpoint cannot be converted."""


class UnreadableFileError(ConversionError):
    """The file is missing, truncated, or holds no tensors."""


class UnsafePickleError(ConversionError):
    """The pickle needs more than data to be read; it was not read."""


class WrongFamilyError(ConversionError):
    """The file belongs to another family of networks."""


class TensorMismatchError(ConversionError):
    """Tensors are missing, unknown, or of another shape."""


class BrokenWeightsError(ConversionError):
    """Some weights are NaN or infinite."""


class MissingFlagError(ConversionError):
    """The file leaves something open that a flag must say."""


class LabelsError(ConversionError):
    """The labels cannot be read, or their number is not the head's."""


def list_names(names: Iterable[str]) -> str:
    """Join names for a message: the first few in order, then how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(ordered[:LISTED]) + more
