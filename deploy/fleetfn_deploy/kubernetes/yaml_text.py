"""Objects as YAML: block style, keys in our order, nothing by alias, texts of several lines as they are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """As text for people, and the same for the same objects."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - PyYAML's
        super().increase_indent(flow, False)


def documents(things: Iterable[dict[str, Any]]) -> str:
    """One document each, begun with `---`: for `kubectl apply -f` and GitOps."""
    return "".join(
        "---\n" + yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True) for each in things
    )
