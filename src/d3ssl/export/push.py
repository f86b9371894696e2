"""A folder in Hugging Face's layout, to a repository on the hub."""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub

from d3ssl.errors import D3sslError, InputError, first_line

TARGET = "hf"
"""The only target that is pushed."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_push(repository: str, to: str) -> None:
    """Before anything is written.

    Raises:
        InputError: another target, no name of a repository, or no token.
    """
    if to != TARGET:
        raise InputError(f"--push belongs to target '{TARGET}', not to '{to}'", remedy=f"set --to {TARGET}.")
    if not _NAME.fullmatch(repository):
        raise InputError(f"'{repository}' is no name of a repository", remedy="write ORG/NAME.")
    if huggingface_hub.get_token() is None:
        remedy = "log in with `hf auth login`, or set HF_TOKEN to a token that may write."
        raise InputError("--push needs a token of Hugging Face, and there is none", remedy=remedy)


def push(folder: Path, repository: str) -> str:
    """Upload a folder as one commit: the repository has all of it or nothing of it.

    Returns:
        The commit's address.

    Raises:
        D3sslError: no network, or the hub refuses it. The folder stays.
    """
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Export from d3ssl")
    except Exception as error:  # of the network, of the client, of the hub
        reason = first_line(error)
        problem = f"was not pushed to {repository} ({type(error).__name__}: {reason}); no file of it is there"
        remedy = f"check network, token and name, then: hf upload {repository} {folder}. The folder is whole."
        raise D3sslError(problem, path=folder, remedy=remedy) from error
    return str(done.commit_url)
