"""Publishing a run to the Hub: a plan to look at, then one commit."""

from __future__ import annotations

from textadv.hub.config import HubConfig
from textadv.hub.plan import PlannedFile, PushPlan, plan_push
from textadv.hub.upload import PublishError, PushResult, push

__all__ = [
    "HubConfig",
    "PlannedFile",
    "PublishError",
    "PushPlan",
    "PushResult",
    "plan_push",
    "push",
]
