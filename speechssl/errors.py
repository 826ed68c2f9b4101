"""Errors that a user can cause. Each says what was given, what is allowed and what to do."""


class SpeechsslError(ValueError):
    """Base of every error that the command line prints as one line (exit code 1)."""


class ConfigError(SpeechsslError):
    """A setting or an argument is unknown, malformed or out of range."""


class AudioError(SpeechsslError):
    """A recording cannot be used."""

    def __init__(self, reason: str, detail: str) -> None:
        """Join the two parts to one message.

        Args:
            reason: a short stable code, for ``rejects.jsonl``.
            detail: what is wrong with this recording, for people.
        """
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ManifestError(SpeechsslError):
    """A manifest, a transcript table or a store does not hold what it must."""


class CheckpointError(SpeechsslError):
    """A checkpoint or a model folder is missing, damaged or of another shape."""


class TrainingError(SpeechsslError):
    """A run cannot go on: at chance, collapsed or not finite. Its last checkpoint stays."""
