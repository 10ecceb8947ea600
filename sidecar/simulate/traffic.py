"""A scenario's traffic: each stream of requests as an endless-looking iterator of calls in the order of their time.

Every stream has dice of its own, seeded by its place in the file, so that two configurations meet the very same
requests at the very same moments, and one stream's change moves no other's.
"""

from collections.abc import Iterator, Mapping
from random import Random

from sidecar.simulate.call import Asked, Call
from sidecar.simulate.network import Network
from sidecar.simulate.scenario import Scenario, Traffic


def streams(scenario: Scenario, network: Network, seed: int) -> Iterator[Iterator[Call]]:
    """All streams of all phases."""
    begin = 0.0
    for i, phase in enumerate(scenario.phases):
        for j, traffic in enumerate(phase.traffic):
            yield _calls(traffic, _asked(traffic, i, network), begin, phase.lasts, Random(f"{seed}/traffic/{i}/{j}"))
        begin += phase.lasts


def _asked(traffic: Traffic, phase: int, network: Network) -> Asked:
    listener = network.listener_of(traffic.listener, traffic.route)
    route = next((one for one in listener.routes if one.name == traffic.route), None)
    method, host, path = ("GET", "simulated.test", "/") if route is None else route.sample
    fields = {name.lower().encode(): value.encode() for name, value in traffic.headers.items()}
    return asked_for(
        phase,
        network,
        listener.name,
        None if route is None else route.name,
        traffic.method or method,
        traffic.host or host,
        traffic.path or path,
        fields,
    )


def asked_for(
    phase: int,
    network: Network,
    listener: str,
    route: str | None,
    method: str,
    host: str,
    path: str,
    fields: Mapping[bytes, bytes],
) -> Asked:
    """What requests of these words have in common; `route` None leaves it to the routing table."""
    entry = network.listeners[listener]
    known = next((one for one in entry.routes if one.name == route), None)
    bare = path.partition("?")[0].encode()
    return Asked(phase, entry, known, method.encode(), host.encode(), bare, fields.get)


def _calls(traffic: Traffic, asked: Asked, begin: float, lasts: float, random: Random) -> Iterator[Call]:
    targets = [asked.path + b"?%d" % number for number in range(traffic.targets)] if traffic.targets > 1 else []
    clients = [b"10.0.%d.%d" % divmod(number % 65536, 256) for number in range(traffic.clients)]
    rate, end, number = traffic.rate, begin + lasts, 0
    now = begin
    while True:
        if traffic.arrivals == "even":
            now = begin + number / rate
            number += 1
        else:
            now += random.expovariate(rate)
        if now >= end:
            return
        target = targets[int(random.random() * len(targets))] if targets else asked.path
        yield Call(asked, now, target, clients[int(random.random() * len(clients))])
