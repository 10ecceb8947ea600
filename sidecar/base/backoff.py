"""Waiting times between tries: exponential growth, a cap, and jitter.

Pure arithmetic. Randomness comes in as a callable that returns a uniform number in [0, 1), so that a test or
the simulation decides it. Full jitter (uniform between nothing and the grown delay) is what keeps a crowd of
clients from knocking in step; see Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
`spread` is for periods that should stay near their nominal value, such as check intervals.
"""

from collections.abc import Callable

Uniform = Callable[[], float]
"""Returns a number in [0, 1); `random.random` in production."""


def exponential(step: int, base: float, cap: float, factor: float = 2.0) -> float:
    """`base * factor**step`, at most `cap`; step 0 is the first wait. Seconds in, seconds out."""
    try:
        return min(cap, base * factor**step)
    except OverflowError:  # a step that large has long reached any cap
        return cap


def full_jitter(step: int, base: float, cap: float, uniform: Uniform, factor: float = 2.0) -> float:
    """A uniform share of the exponential wait of this step."""
    return uniform() * exponential(step, base, cap, factor)


def spread(value: float, share: float, uniform: Uniform) -> float:
    """`value` moved by at most `share` of itself, up or down with equal chance."""
    return value * (1.0 + share * (2.0 * uniform() - 1.0))
