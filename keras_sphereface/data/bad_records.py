"""Broken images met in training: named, counted, and too much at some point."""

import logging

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.process_lock import ProcessLock
from keras_sphereface.errors import FileFormatError

log = logging.getLogger(__name__)


class BadRecords:
    """Remembers which images of a data set turned out to be broken.

    Args:
        name: Name of the data set, for the messages.
        max_bad: Number of broken images that is put up with.
        strict: Whether the first one is an error.
    """

    def __init__(self, name: str, max_bad: int = 100, strict: bool = False):
        self.name, self.max_bad, self.strict = name, whole_number("max_bad", max_bad, 0), strict
        self.messages = {}
        self._lock = ProcessLock()

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, record: int, error: Exception) -> None:
        """Counts a broken image.

        Args:
            record: Number of the image.
            error: What was wrong with it.

        Raises:
            FileFormatError: If none is allowed, or this one is one too many.
        """
        with self._lock:
            is_new = record not in self.messages
            self.messages.setdefault(record, str(error))
            count = len(self.messages)
        if self.strict:
            raise FileFormatError(f"{error} (strict: stopped at the first broken image)") from error
        if is_new:
            log.warning("broken image %d of at most %d skipped: %s", count, self.max_bad, error)
        if count > self.max_bad:
            raise FileFormatError(
                f"{self.name}: {count} broken images, more than max_bad={self.max_bad}. The latest: {error} "
                "Repair the data, or allow more."
            ) from error
