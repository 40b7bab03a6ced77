"""Targets: what wheels are chosen for, and whether what is built here runs there."""

from dataclasses import replace

import pytest
from fleetfn_builder.assembly.target import Target, of_this_machine

AMD64 = Target("3.11", "amd64", "glibc", "/usr/bin/python3.11")


@pytest.mark.parametrize(
    ("target", "platform"),
    [
        (replace(AMD64, libc_version="2.36"), "x86_64-manylinux_2_36"),
        (AMD64, "x86_64-manylinux_2_28"),
        (replace(AMD64, architecture="arm64", libc_version="2.31"), "aarch64-manylinux_2_31"),
        (replace(AMD64, libc_version="2.30"), "x86_64-manylinux_2_28"),
        (replace(AMD64, libc_version="2.26"), "x86_64-manylinux_2_17"),
        (replace(AMD64, libc_version="2.12"), "x86_64-manylinux_2_17"),
        (replace(AMD64, libc_version="2.99"), "x86_64-manylinux_2_40"),
        (replace(AMD64, libc="musl"), "x86_64-unknown-linux-musl"),
        (replace(AMD64, libc="musl", architecture="arm64"), "aarch64-unknown-linux-musl"),
    ],
    ids=["known", "unknown", "arm64", "between", "old", "ancient", "new", "musl", "musl-arm64"],
)
def test_wheels_are_chosen_for_the_c_library_of_the_image(target, platform):
    assert target.platform == platform


def test_this_machine_is_here():
    assert of_this_machine().is_here


@pytest.mark.parametrize(
    "other",
    [
        {"python": "3.99"},
        {"architecture": "riscv64"},
        {"libc": "other"},
        {"libc_version": "2.5"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_differs_in_one_thing_is_not_here(other):
    assert not replace(of_this_machine(), **other).is_here


def test_a_newer_c_library_runs_what_was_built_with_an_older_one():
    assert replace(of_this_machine(), libc_version="2.99").is_here


def test_it_says_what_it_is():
    assert str(AMD64) == "linux/amd64, Python 3.11, glibc"
    assert AMD64.site_packages == "lib/python3.11/site-packages"
