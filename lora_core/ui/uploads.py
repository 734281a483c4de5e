"""Uploaded files: each request in a folder of its own, which goes when the request breaks off.

Gradio's own route leaves what had arrived of a broken-off upload, and answers a full disk with
"Internal Server Error". This one stands before it, and uses its parser.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import anyio.to_thread
from gradio.route_utils import upload_fn
from gradio.routes import file_upload_statuses
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lora_core.limits import MEGABYTE
from lora_core.ui.sentences import sentence_of

_FILES = 10  # in one request; an adapter has two
IN_ALL_MB = 1000  # of all visitors; a file is read within seconds, and lies there for its time
_LEAST = 50_000  # bytes that an upload counts for: of tiny ones a disk holds no end, either


def route(upload_mb: int) -> Route:
    """`POST /gradio_api/upload`, as Gradio's client calls it."""
    kept: dict[Path, tuple[int, list[str]]] = {}  # folders, their bytes and files, oldest first

    total = 0  # bytes

    async def upload(request: Request) -> Response:
        nonlocal total
        # Nobody can guess the folder, so nobody else can ask for the file by its path.
        folder = Path(get_upload_folder()) / f"upload-{secrets.token_urlsafe(16)}"
        progress = request.query_params.get("upload_id")
        complete = False
        try:
            paths, _, _ = await upload_fn(
                request,
                str(folder),
                upload_mb * MEGABYTE,
                progress,
                upload_progress=file_upload_statuses if progress else None,
            )
            if len(paths) > _FILES:
                return PlainTextResponse(f"Bring at most {_FILES} files at once.", 413)
            complete = True
        except MultiPartException as error:
            large = "maximum allowed size" in error.message
            said = f"A file may have at most {upload_mb} MB." if large else error.message
            return PlainTextResponse(said, 413 if large else 400)
        except ClientDisconnect:
            return PlainTextResponse("The upload broke off.", 400)
        except HTTPException as error:
            return PlainTextResponse(str(error.detail), error.status_code)
        except OSError as error:
            return PlainTextResponse(sentence_of(error, "upload"), 507)
        except Exception:
            return PlainTextResponse("This is not an upload that can be read.", 400)
        finally:
            if not complete:
                await anyio.to_thread.run_sync(_forget, folder)
                if progress:
                    file_upload_statuses.stop_tracking(progress)
        # Files that Gradio forgets when their time is over.
        known: set[str] = request.app.get_blocks().upload_file_set
        known.update(paths)
        size = max(_LEAST, sum(Path(path).stat().st_size for path in paths))
        kept[folder] = size, paths
        total += size
        while total > IN_ALL_MB * MEGABYTE:
            oldest = next(iter(kept))
            size, gone = kept.pop(oldest)
            total -= size
            known.difference_update(gone)
            await anyio.to_thread.run_sync(_forget, oldest)
        return JSONResponse(paths)

    return Route("/gradio_api/upload", upload, methods=["POST"])


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
