"""The world outside: a shop whose order and payment systems record every call, so that calls can be counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORDERS = {"1042": {"item": "desk lamp", "paid": 49.90, "state": "delivered"}}


class Shop:
    """A shop whose systems record each call in a file that outlives the agents.

    Args:
        folder: The folder of that file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "calls.jsonl"

    def look_up(self, order_id: str) -> dict[str, Any]:
        """Returns an order."""
        self._note("look_up", order_id)
        return ORDERS[order_id]

    def pay_back(self, order_id: str, amount: float) -> None:
        """Pays a customer back."""
        self._note("pay_back", f"{amount:.2f} EUR for order {order_id}")

    def calls(self, system: str) -> list[str]:
        """Returns every call that one of the systems has received, oldest first."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [call["what"] for call in map(json.loads, lines) if call["system"] == system]

    def _note(self, system: str, what: str) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"system": system, "what": what}) + "\n")
