"""Floor 4a: the data plane. accept -> parse -> route -> admit -> pick -> forward -> relay -> record."""
