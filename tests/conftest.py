"""What every test may use. The fixtures of one concern stand in the conftest beside its tests."""

import signal

from hypothesis import settings

# A shell lets what it runs in the background ignore these two, and every process that we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# How long an example takes on a busy machine is no property of what is tested.
settings.register_profile("no-clock", deadline=None)
settings.load_profile("no-clock")
