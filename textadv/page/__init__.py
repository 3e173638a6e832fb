"""The HTML report: one file that shows what was measured, on whom, and how to repeat it."""

from __future__ import annotations

from textadv.page.build import build_page, write_report

__all__ = ["build_page", "write_report"]
