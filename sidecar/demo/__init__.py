"""The whole thing at work on one machine: `python -m sidecar.demo`.

Two example services and what they need in processes of their own, the real proxy in front, customers who order, and
a fault now and then. Everything is told in one readable line; what the processes write goes to `.demo/`. Nothing in
the product imports this package.
"""
