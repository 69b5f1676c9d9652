"""Contract tests for authors of models: ``check_model(MyModel)`` in a test of one's own.

The command ``check --model MyModel`` runs the same rules and prints them one by one.
"""

from __future__ import annotations

from ifmmin.testing.rules import RULES, Failure, Rule, Verdict, check_model, verdicts

__all__ = ["RULES", "Failure", "Rule", "Verdict", "check_model", "verdicts"]
