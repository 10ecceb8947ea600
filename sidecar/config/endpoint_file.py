"""The file of `discovery: {file: …}`: a YAML or JSON list of endpoints, written as `upstreams[].endpoints` is.

Read by the same rules as the configuration, so its faults come with their places too. `[]` says that there is none; an
empty file says nothing and is a fault, since that is what a write that was cut short leaves behind.
"""

from sidecar.config.decode import Decoder
from sidecar.config.faults import Fault, InvalidConfig, Mark
from sidecar.config.nodes import compose
from sidecar.config.upstreams import Endpoint


def parse_endpoints(data: bytes, file: str) -> tuple[Endpoint, ...]:
    """Read the list in `data`; raises `InvalidConfig` with every fault. May take a second for a file of 1 MiB."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeError:
        raise InvalidConfig([Fault(file, Mark(), "", "not UTF-8 text")]) from None
    root, faults = compose(text, file)
    if root is None:
        raise InvalidConfig(faults or [Fault(file, Mark(), "", "the file is empty; [] says that there is no endpoint")])
    decoder = Decoder(file, {})
    endpoints: tuple[Endpoint, ...] = decoder.sections(root, Endpoint)
    if faults or decoder.faults:
        raise InvalidConfig(sorted([*faults, *decoder.faults], key=lambda fault: fault.mark))
    return endpoints
