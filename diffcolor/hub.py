"""Models from a hub, through its own client: what is needed and no more, once per machine.

The client keeps files in its cache (HF_HOME) under a lock, so that the workers of a machine fetch once; it resumes half
a download, and takes its token and server from HF_TOKEN and HF_ENDPOINT.
"""

from collections.abc import Callable
from pathlib import Path

from diffcolor.errors import BaseModelError


def fetch(name: str, choose: Callable[[list[str]], list[str]]) -> Path:
    """The local folder of a hub id.

    Args:
        choose: of the names of all files those that are needed; it may raise a BaseModelError.

    Raises:
        BaseModelError: it cannot be fetched and is not here from an earlier time.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=choose(HfApi().list_repo_files(name))))
    except BaseModelError:
        raise
    except HFValidationError as error:
        raise BaseModelError(name, "there is no such folder, and it is no hub id (OWNER/NAME)") from error
    except Exception as error:  # the client's own, its HTTP library's, and those of sockets and files
        if not _refused(error):
            try:
                names = [file.path for file in get_cached_repo_tree(name)]
                return Path(snapshot_download(name, allow_patterns=choose(names), local_files_only=True))
            except Exception:  # not here, or half of it: the first reason tells more
                pass
        raise BaseModelError(name, _why(error)) from error


def _refused(error: Exception) -> bool:
    """Whether the hub itself said no; then what lies here from before is not taken in its stead."""
    from huggingface_hub.errors import RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError)


def _why(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "its terms must be accepted on the hub, and HF_TOKEN be set"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such folder, and no such model on the hub; if it is a private one, set HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "it is not on this machine, and HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {error.response.status_code}; try again later"
    return f"it is not on this machine, and the hub cannot be reached ({type(error).__name__})"
