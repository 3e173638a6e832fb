"""One commit that uploads a plan, and one line when it cannot."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textadv.errors import DataError, TextAdvError, shown
from textadv.hub.plan import PushPlan, secret

__all__ = ["PublishError", "PushResult", "push"]

_REFUSALS = {
    401: (
        "the access token was refused (401)",
        "log in again with `hf auth login` or set HF_TOKEN",
    ),
    403: ("the access token may not write there (403)", "use a token with write access"),
    404: ("no such owner or repository, or no access to it (404)", "check the repository id"),
    409: ("somebody else changed the repository at the same time (409)", "try again"),
    412: ("somebody else changed the repository at the same time (412)", "try again"),
    429: ("too many requests (429)", "try again later"),
}


class PublishError(TextAdvError, RuntimeError):
    """An upload that the Hub refused, or that did not reach it."""


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What an upload did.

    Args:
        url: Page of the repository.
        commit: Hash of its newest commit.
        changed: False when the repository already held the same files.
    """

    url: str
    commit: str
    changed: bool

    def __str__(self) -> str:
        state = f"commit {self.commit[:8]}" if self.changed else "no change since the last commit"
        return f"{self.url} ({state})"


def push(plan: PushPlan, *, token: str | None = None, private: bool = False) -> PushResult:
    """Upload a plan in one commit; create the repository when it does not exist.

    The files are copied aside and compared with the plan first, so what was listed is what is sent.
    The token is never part of a message.

    Args:
        plan: From `plan_push`.
        token: Access token; the one of `hf auth login` or HF_TOKEN when not given.
        private: Create the repository as private, as the recipe can also ask; an existing public
            one is then refused.

    Raises:
        DataError: A file changed after it was listed, or holds the token.
        PublishError: The Hub refused, failed or could not be reached; the line says whether
            anything is left there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    token, private = token or get_token(), private or plan.private
    if not token:
        raise PublishError(
            "publishing",
            got="no access token",
            expected="one with write access",
            fix="log in with `hf auth login` or set HF_TOKEN",
        )
    with tempfile.TemporaryDirectory(prefix="textadv-push-") as folder:
        staged = _stage(plan, Path(folder), token)
        api = HfApi(token=token)
        attempt = _Attempt(plan.repo_id, token, api.endpoint)
        with attempt.one_line():
            api.whoami()
            parent = attempt.find(api, private)
            if parent is None:
                api.create_repo(plan.repo_id, private=private or None, exist_ok=True)
                attempt.created = True
            operations = [
                CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)
                for path, source in staged.items()
            ]
            attempt.committing = True
            # Not upload_folder: where Xet is installed it splits an upload into several commits.
            info = api.create_commit(
                plan.repo_id,
                operations,
                commit_message="Publish with textadv",
                parent_commit=parent,
            )
    return PushResult(
        url=f"{api.endpoint}/{plan.repo_id}", commit=info.oid, changed=info.oid != parent
    )


def _stage(plan: PushPlan, folder: Path, token: str) -> dict[str, Path]:
    """Copy the files aside, and refuse what is no longer what was listed."""
    staged = {}
    for file in plan.files:
        target = folder / file.path
        if token in file.text():
            raise secret(file.path)
        if file.source is None:
            target.write_bytes(file.content or b"")
        else:
            shutil.copyfile(file.source, target)
        with target.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != file.sha256:
                raise DataError(
                    str(file.source), got="a change since it was listed", expected="the listed file"
                )
        staged[file.path] = target
    return staged


class _Attempt:
    """How far an upload has come, for the one line that says so."""

    def __init__(self, repo_id: str, token: str, endpoint: str) -> None:
        self.repo_id, self.token, self.endpoint = repo_id, token, endpoint
        self.created = self.committing = False

    def find(self, api: Any, private: bool) -> str | None:
        """Return the newest commit of the repository, or None when it does not exist."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            found = api.model_info(self.repo_id)
        except RepositoryNotFoundError:
            return None
        if private and not found.private:
            raise PublishError(
                f"publishing to {self.repo_id}",
                got="a public repository",
                expected="a private one",
                fix="make it private on the Hub, or publish without the private option",
            )
        return str(found.sha)

    @contextlib.contextmanager
    def one_line(self) -> Iterator[None]:
        """Turn whatever the client raises into one line without the token."""
        from huggingface_hub.errors import HTTPError

        try:
            yield
        except PublishError:
            raise
        except (HTTPError, OSError, ValueError) as error:
            raise self._failure(error) from None
        except RuntimeError as error:
            # The client wraps what goes wrong while weights are sent, before the commit.
            self.committing = False
            raise self._failure(error.__cause__ or error) from None

    def _failure(self, error: BaseException) -> PublishError:
        from huggingface_hub.errors import HTTPError

        status = getattr(getattr(error, "response", None), "status_code", None)
        lost = status is None and isinstance(error, HTTPError | OSError)
        got, fix = _REFUSALS.get(status or 0, ("", ""))
        if lost:
            got = f"no connection to {self.endpoint} ({type(error).__name__})"
            fix = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        elif not got and status is not None and status >= 500:
            got, fix = f"a failure of the Hub ({status})", "try again later"
        elif not got:
            got = f"a refusal ({status or type(error).__name__}: {self._message(error)})"
        if self.committing and lost:
            got += "; whether the commit arrived is not known, look at the repository"
        elif self.created:
            got += "; nothing was published, the new repository is empty"
        else:
            got += "; nothing was published"
        return PublishError(f"publishing to {self.repo_id}", got=got, fix=fix)

    def _message(self, error: BaseException) -> str:
        message = " ".join(str(error).split()).replace(self.token, "***")
        return shown(message, 200)
