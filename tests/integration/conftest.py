"""Fixtures of tests that use a whole machine."""

from machine import machine

__all__ = ["machine"]
