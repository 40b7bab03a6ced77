"""A real node with real brokers under load and disorder, both drawn from a seed, and a program that proves what came of
it. `make soak` runs it; ARCHITECTURE.md tells what is proven.
"""
