"""A long differential run of the codecs over mutated messages: `make fuzz`, SECONDS=600 for longer.

Starts from the corpus, mutates blindly (bytes, pieces, whole lines, splices of two messages) and cuts at random, with a
seed of its own per run, printed, so that FUZZ_SEED repeats what failed. What must hold is `tests.proxy.codec.oracle`;
Hypothesis explores the grammar in the ordinary tests, here it is quantity that counts.
"""

import os
import random
import time
from collections import Counter

from tests.proxy.codec import corpus
from tests.proxy.codec.oracle import chunked_agrees, request_agrees, response_agrees

SECONDS = float(os.environ.get("SECONDS", "60"))
SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))

REQUESTS = [*corpus.FAST_REQUESTS.values(), *corpus.SLOW_REQUESTS.values()]
REQUESTS += [data for data, _ in corpus.REFUSED_REQUESTS.values()]
RESPONSES = [*corpus.FAST_RESPONSES.values(), *corpus.SLOW_RESPONSES.values(), *corpus.REFUSED_RESPONSES.values()]
CHUNKED = [data for data, *_ in corpus.CHUNKED.values()]
CHUNKED += [data for data in corpus.BAD_CHUNKED.values() if len(data) < 200]

PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b": ",
    b",",
    b";",
    b"\x00",
    b"\x7f",
    b"\x80",
    b"0",
    b"/..",
    b"%2e",
    b"*",
]


def mutated(chance: random.Random, seeds: list[bytes]) -> bytes:
    data = chance.choice(seeds)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 1, 2, 8)))
        kind = chance.randrange(8)
        if kind == 0:
            data = data[:start] + data[end:]
        elif kind == 1:
            data = data[:start] + bytes([chance.randrange(256)]) + data[end:]
        elif kind == 2:
            data = data[:start] + chance.choice(PIECES) + data[end:]
        elif kind == 3:
            data = data[:start] + data[start:end].swapcase() + data[end:]
        elif kind == 4:
            data = data[:start] + chance.choice(seeds)[chance.randrange(20) :]
        else:
            lines = data.split(b"\r\n")
            others = chance.choice(seeds).split(b"\r\n")
            line = chance.choice(others if kind == 5 else lines)
            if kind == 7:
                lines.remove(line)
            lines.insert(chance.randrange(len(lines) + 1), line)
            data = b"\r\n".join(lines)
    return data


def cuts(chance: random.Random, size: int) -> list[int]:
    return [chance.randrange(size + 1) for _ in range(chance.choice((0, 1, 3)))]


def test_the_codecs_agree_on_whatever_comes() -> None:
    print(f"seed {SEED}, {SECONDS:g} s")
    chance = random.Random(SEED)
    seen: Counter[str] = Counter()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for _ in range(200):
            kind = chance.choice(("request", "response", "chunked"))
            data = mutated(chance, {"request": REQUESTS, "response": RESPONSES, "chunked": CHUNKED}[kind])
            where = cuts(chance, len(data))
            try:
                if kind == "request":
                    outcome = request_agrees(data, cuts=where)
                elif kind == "response":
                    outcome = response_agrees(data, chance.choice((b"GET", b"HEAD")), cuts=where)
                else:
                    outcome = chunked_agrees(data, where)
            except Exception as error:
                raise AssertionError(f"seed {SEED}: {kind} {data!r} cut at {where}") from error
            seen[f"{kind} {outcome[0]}"] += 1
    print(dict(sorted(seen.items())))
    assert all(seen[case] for case in ("request head", "request fault", "response head", "chunked done", "chunked bad"))
