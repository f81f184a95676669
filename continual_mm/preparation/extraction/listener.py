"""Who is told how an extraction goes on."""


class ExtractionListener:
    """Hears of an extraction's progress; by default it does not care."""

    def prepares(self, workers: int) -> None:
        """Towers are about to be loaded, by other processes or, if 0, by this one."""

    def begins(self, clips: int, left: int) -> None:
        """So many clips there are, and so many of them are still to do."""

    def finished(self, clip: str) -> None:
        """A clip has its features."""

    def failed(self, clip: str, problem: str) -> None:
        """A clip has none, for a reason told in one line; the others go on."""

    def ends(self, finished: int, failed: int) -> None:
        """All is done: so many clips have features, and so many have none."""
