"""A base by its name on the Hugging Face Hub: what it has, how large it is, and its files.

Everything is asked anonymously (`token=False`): a token of the machine's owner is lent to nobody,
and one that has expired does not stand before what is public. Files lie in the Hub's own cache.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lora_core.base.errors import BaseError, disk_trouble
from lora_core.base.tokenizer_files import OTHER_KINDS, TOKENIZER_FILES

HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
HUB_SILENCE = 30.0  # seconds without a byte after which the Hub counts as out of reach
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
_SMALL_FILES = ("config.json", INDEX_FILE, *TOKENIZER_FILES)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.pth")


def no_safetensors(where: str, files: list[str]) -> str:
    """A sentence for a model without safetensors: what is there instead, and what to do."""
    names = [PurePosixPath(file).name for file in files]
    pickle = next(
        (n for n in names if n in PICKLES or n.endswith((".bin", ".pt", ".pth", ".ckpt"))), None
    )
    if pickle:
        return (
            f"{where} holds its weights as {pickle} alone. That is a pickle, which could run any "
            "program, and is never opened. Convert it to safetensors where you trust it: "
            "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    other = next((n for n in names if n.endswith((".h5", ".msgpack", ".onnx", ".gguf"))), None)
    if other:
        return (
            f"{where} holds its weights as {other} alone; only {WEIGHTS_FILE} can be read. Save "
            "the model again with transformers."
        )
    renamed = next((n for n in names if n.endswith(".safetensors")), None)
    if renamed:
        return f"{where} has no {WEIGHTS_FILE}. Is {renamed} meant? Call it {WEIGHTS_FILE}."
    return f"{where} holds no weights: there is no {WEIGHTS_FILE}."


def download_base(repository: str) -> Path:
    """The folder with a Hub model's configuration, tokenizer and weights. Raises `BaseError`."""
    sizes = repository_files(repository)
    if sizes is None:  # nobody answers: what an earlier download kept is enough
        return _snapshot(repository, [*_SMALL_FILES, "model*.safetensors"], local=True)
    return _snapshot(repository, wanted_files(repository, sizes), local=False)


def download_config(repository: str) -> Path:
    """The folder with a Hub model's `config.json` alone: its size is known before its weights."""
    return _snapshot(repository, ["config.json"], local=repository_files(repository) is None)


def cached_folder(repository: str) -> Path | None:
    """The folder of an earlier download, or None; asks nobody."""
    try:
        return _snapshot(repository, [*_SMALL_FILES], local=True)
    except BaseError:
        return None


def wanted_files(repository: str, files: dict[str, int]) -> list[str]:
    """Which files of a repository make a base. Raises `BaseError` where it has no safetensors."""
    if "config.json" not in files:
        adapter = " It holds an adapter: load it as one." if "adapter_config.json" in files else ""
        raise BaseError(f"'{repository}' holds no config.json: it is no model.{adapter}")
    shards = [n for n in files if n.startswith("model-") and n.endswith(".safetensors")]
    weights = shards if INDEX_FILE in files or WEIGHTS_FILE not in files else [WEIGHTS_FILE]
    if not weights:
        raise BaseError(no_safetensors(f"'{repository}'", list(files)))
    known = [name for name in (*_SMALL_FILES, *OTHER_KINDS) if name in files]
    return [*known, *weights]


def repository_files(repository: str) -> dict[str, int] | None:
    """Names and bytes of a public repository's files; None where the Hub cannot be reached.

    Raises `BaseError` for a name that the Hub does not know, or does not show to everybody.
    """
    # 1 s, here and below: only for who asks the Hub
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi(endpoint=hub_endpoint(), token=False)
        # The library itself would wait for ever.
        info = api.repo_info(repository, files_metadata=True, timeout=HUB_SILENCE)
    except HFValidationError as error:
        raise BaseError(f"'{repository}' is not a name of the Hub: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status >= 500:
            return None
        raise BaseError(_refusal(repository, status)) from error
    except Exception:  # of whichever library speaks HTTP: nobody answers
        return None
    return {file.rfilename: int(file.size or 0) for file in getattr(info, "siblings", None) or []}


def hub_endpoint() -> str | None:
    """A mirror that `HF_ENDPOINT` names, or None for the Hub itself."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _refusal(repository: str, status: int) -> str:
    if status in (401, 403, 404):
        return f"'{repository}' is not on the Hub, or not open to everybody. Is the name right?"
    return f"The Hub answered {status} for '{repository}'. Try again later."


def _snapshot(repository: str, files: list[str], *, local: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    cache = constants.HF_HUB_CACHE
    unreachable = BaseError(
        f"'{repository}' is not on this machine and the Hugging Face Hub cannot be reached. "
        "The bundled base works without a network."
    )
    try:
        return Path(
            snapshot_download(
                repository,
                allow_patterns=files,
                local_files_only=local,
                token=False,
                endpoint=hub_endpoint(),
            )
        )
    except HFValidationError as error:
        raise BaseError(f"'{repository}' is not a name of the Hub: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise BaseError(_refusal(repository, status)) from error
    except LocalEntryNotFoundError as error:
        raise unreachable from error
    except (ValueError, TypeError, KeyError) as error:
        raise BaseError(
            f"The Hub's answer about '{repository}' could not be understood. Try again later."
        ) from error
    except OSError as error:
        if not (trouble := disk_trouble(error)):
            raise unreachable from error
        raise BaseError(
            f"'{repository}' cannot be kept in {cache}: {trouble}. Name another folder in HF_HOME."
        ) from error
