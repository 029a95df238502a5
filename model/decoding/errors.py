"""What can be wrong with audio that somebody sent.

    AudioError (ValueError)     base; its text is one sentence a caller can act on
    ├── NotAudioError           the bytes are no audio, or none that we decode
    ├── BrokenAudioError        recognised, but damaged, cut short, empty, or with an absurd header
    └── AudioTooLongError       longer than the caller's limit; the sentence gives both numbers

Whatever the bytes, decoding raises nothing else. Trouble with the file itself (missing, unreadable) stays an OSError.
"""


class AudioError(ValueError):
    """Base of everything that is wrong with the audio itself."""


class NotAudioError(AudioError):
    """The bytes are not audio in a container and codec that we decode."""


class BrokenAudioError(AudioError):
    """The bytes are audio, but damaged, cut short, empty, or with an absurd header."""


class AudioTooLongError(AudioError):
    """The audio is longer than the limit it was opened with."""


MIN_SAMPLE_RATE_HZ = 1_000  # below any telephone; less is a data logger, or a bomb once resampled
MAX_SAMPLE_RATE_HZ = 768_000  # the fastest audio converters sold; bat detectors stop at 500,000
MAX_CHANNELS = 255  # as many as Opus and Vorbis can name


def check_layout(sample_rate: int, channels: int) -> None:
    """Refuse a sample rate (Hz) or channel count that no real recording has.

    Raises: BrokenAudioError naming the value and the limits.
    """
    if not MIN_SAMPLE_RATE_HZ <= sample_rate <= MAX_SAMPLE_RATE_HZ:
        raise BrokenAudioError(
            f"the audio declares a sample rate of {sample_rate:,} Hz;"
            f" {MIN_SAMPLE_RATE_HZ:,} to {MAX_SAMPLE_RATE_HZ:,} Hz can be decoded"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise BrokenAudioError(f"the audio declares {channels:,} channels; 1 to {MAX_CHANNELS} can be decoded")
