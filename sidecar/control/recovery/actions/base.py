"""What actions have in common."""


class Plain:
    """An action that restarts nothing, changes nothing that lasts, and has no process to look at."""

    strategy = ""
    restarts = False
    lasts = False
    """Whether what it did holds until `undo`."""
    about = ""

    async def undo(self) -> None:
        """Nothing was left behind."""

    async def needless(self) -> bool:
        return True

    def renewed(self) -> bool:
        return True
