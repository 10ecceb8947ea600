"""From what `do` says to the action that does it. Each kind is imported when the first of it is built."""

from sidecar.config.recovery import Recovery
from sidecar.control.recovery.ports import Action, Surroundings


def action(rule: Recovery, around: Surroundings) -> Action:
    """The action of `rule`."""
    do = rule.do
    if do.restart == "process":
        from sidecar.control.recovery.actions.process import RestartProcess

        return RestartProcess(around)
    if do.restart == "liveness":
        from sidecar.control.recovery.actions.liveness import FailLiveness

        return FailLiveness()
    if do.restart == "signal":
        from sidecar.control.recovery.actions.signal import SignalProcess

        return SignalProcess(do.process or "", do.signal)
    if do.restart == "command":
        from sidecar.control.recovery.actions.command import RunCommand

        return RunCommand(do.command, do.timeout)
    if do.restart == "evict":
        from sidecar.control.recovery.actions.evict import EvictPod

        return EvictPod(do.eviction, around, do.timeout)
    if do.webhook is not None:
        from sidecar.control.recovery.actions.webhook import CallWebhook

        return CallWebhook(do.webhook, rule, around, do.timeout)
    if do.reroute is not None:
        from sidecar.control.recovery.actions.reroute import Reroute

        return Reroute(do.reroute, around)
    if do.shift is not None:
        from sidecar.control.recovery.actions.shift import ShiftPriority

        return ShiftPriority(do.shift, around)
    if do.drain is not None:
        from sidecar.control.recovery.actions.drain import DrainEndpoints

        return DrainEndpoints(do.drain, around)
    from sidecar.control.recovery.actions.flush import ClearCache, FlushPool

    if do.flush_pool is not None:
        return FlushPool(do.flush_pool, around)
    assert do.clear_cache is not None, "exactly one is given"
    return ClearCache(do.clear_cache, around)
