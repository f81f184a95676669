"""Files of a dataset repository on the Hugging Face Hub, or of a folder that holds them already."""

import re
from collections.abc import Sequence
from pathlib import Path

from continual_mm.data.hugging_face import PREFIX
from continual_mm.system.errors import InputError, first_line

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetched(source: str, patterns: Sequence[str]) -> Path:
    """The folder of a source; of ``hf:owner/name@revision`` matching files are downloaded first.

    What was downloaded once is kept by ``huggingface_hub`` and needs no network. Nothing in the
    files is run or unpickled here.
    """
    if not source.startswith(PREFIX):
        if not Path(source).is_dir():
            raise InputError.at(source, "is no folder", f"give one, or {PREFIX}owner/name")
        return Path(source)
    match = _NAME.fullmatch(source.removeprefix(PREFIX))
    if match is None:
        raise InputError.at(source, "names no dataset", f"write {PREFIX}owner/name")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a folder needs none of it
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        folder = snapshot_download(
            match["repository"],
            repo_type="dataset",
            revision=match["revision"],
            allow_patterns=list(patterns),
        )
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        remedy = (
            f"download it where there is a network (hf download {match['repository']} --repo-type"
            " dataset --local-dir FOLDER), and give FOLDER"
        )
        problem = f"cannot be downloaded: {first_line(error)}"
        raise InputError.at(source, problem, remedy) from error
    return Path(folder)
