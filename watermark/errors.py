"""What can go wrong in `watermark`.

WatermarkError
├── MarkError    a frame could not be marked: play `Silence`, raise an alarm
├── KeyFileError a key file is missing, malformed, or readable by others
├── SoundError   a recording cannot be examined: not sound, too short, too long
└── WeightsError the envelope layer's network is missing or is not the release's
"""


class WatermarkError(Exception):
    """Base of every error of this package."""


class MarkError(WatermarkError):
    """A frame could not be marked."""


class KeyFileError(WatermarkError):
    """A key file cannot be used; the message says why and how to fix it."""


class SoundError(WatermarkError):
    """A recording cannot be examined."""


class WeightsError(WatermarkError):
    """The envelope layer's network cannot be used; the message says why."""
