"""HTTP/1.x on the wire: strict in what it takes, canonical in what it gives.

`FAST` reads what is common with one regular expression per head and hands everything else to `REFERENCE`: our own
strict screen followed by h11. Heads, limits and the interface `Codec` are in `head`, the readers of bodies in `body`.
"""

from sidecar.proxy.codec.fast import FastCodec
from sidecar.proxy.codec.head import Codec
from sidecar.proxy.codec.reference import ReferenceCodec

REFERENCE: Codec = ReferenceCodec()
FAST: Codec = FastCodec(REFERENCE)

__all__ = ["FAST", "REFERENCE", "Codec"]
