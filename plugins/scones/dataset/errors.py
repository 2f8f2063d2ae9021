"""What staging refuses, by name.

All are ``BadInputError`` (a ``ValueError``): trying again changes nothing, so a task that meets one should fail at once
instead of using up its retries. ``DownloadError`` is not: a later try may succeed.
"""

from __future__ import annotations


class BadInputError(ValueError):
    """The input is wrong and will still be wrong at the next try. The message says what to do."""


class CorruptArchiveError(BadInputError):
    """The archive is damaged, incomplete, or not CIFAR-100."""


class UnsafeArchiveError(BadInputError):
    """The archive holds something an honest CIFAR-100 archive never does: links, devices, ``../`` names, a bomb."""


class UnsafePickleError(UnsafeArchiveError):
    """A pickle inside the archive asks for code to run, or for more than a CIFAR-100 pickle needs."""


class UnknownClassError(BadInputError):
    """A class was asked for that the archive does not have."""


class DataCheckError(BadInputError):
    """The selected images cannot train a model worth having."""


class ArchiveNotFoundError(BadInputError):
    """The archive that was asked for is not there."""


class DownloadError(RuntimeError):
    """The download failed after all tries, or would take longer than its budget allows."""
