"""The proxy process, wired: configuration, data plane, workers, admin interface, signals.

`program.py` is the process that the operator started; `crew.py` is who serves for it, itself or worker processes;
`worker.py` is one serving process's inside.
"""
