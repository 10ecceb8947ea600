"""Floor 2: the decisions. Pure: no asyncio, no clock, no sockets; `now` is always passed in."""
