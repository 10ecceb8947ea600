"""Probes: one question to one target, asked once. Nothing here knows when to ask or what follows from the answer.

A probe is bounded in time by who asks (`probe.ask`) and in bytes by `stream.Stream`. What it tells is for people and
free of secrets and of the target's own words, apart from status numbers and error codes of a known form.
"""
