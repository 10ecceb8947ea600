"""What the file may say already though nothing acts on it yet; `check` prints a note for each.

A feature that lands deletes its line. Paths are written without list positions; a line covers everything below it.
"""

NOT_ACTIVE_YET: tuple[str, ...] = ()
