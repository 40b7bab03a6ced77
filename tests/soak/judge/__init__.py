"""Proves from outside what came of a run: reads the brokers' log, SQLite files and what receivers wrote down, and knows
nothing of FleetFn's code.
"""
