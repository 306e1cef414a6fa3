"""What the tests of the dashboards fill their data folder with: a record of simulated visits."""

from __future__ import annotations

from pathlib import Path

from topbill.simulation.recording import record_visits

__all__ = ["EXPERIMENTS", "record_visits"]

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
