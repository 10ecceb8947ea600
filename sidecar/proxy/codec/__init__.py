"""HTTP/1.x on the wire: strict in what it takes, canonical in what it gives.

`FAST` reads what is common with one regular expression per head and hands everything else to `REFERENCE`: our own
strict screen followed by h11. `RequestHead`, `ResponseHead`, `Limits` and `Codec` are in `head`, body readers in `body`.
"""
