"""The whole thing at work on one machine: `python -m sidecar.demo`.

An example service in a process of its own, the real proxy in front of it, customers who order things through it, and
a fault now and then. Everything is told in one readable line; what the processes write goes to `.demo/`. Nothing in
the product imports this package.
"""
