"""The repository, pushed as it is, runs as a Hugging Face Space: tried as far as a machine can.

The rules for files and front matter are read off the Hub's documentation; the two environments are
imitated by their variables, over a clone without LFS, with nothing to import but requirements.txt.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client

from lora_core.limits import Limits
from tests.test_requirements import requirements

PROJECT = Path(__file__).resolve().parent.parent
MEGABYTE = 1_000_000
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}

RUNNER = """
import builtins, runpy, sys

BLOCKED = {"peft", "transformers", "sklearn", "scipy", "playwright", "pytest", "hypothesis",
           "accelerate", "tests"}
really = builtins.__import__


def only_what_is_required(name, globals=None, locals=None, fromlist=(), level=0):
    if not level and name.split(".")[0] in BLOCKED:
        raise ModuleNotFoundError(f"{name} is not in requirements.txt", name=name)
    return really(name, globals, locals, fromlist, level)


builtins.__import__ = only_what_is_required
sys.argv = ["app.py"]
runpy.run_path("app.py", run_name="__main__")
"""

FAKE_SPACES = '''
"""In place of the package that ZeroGPU installs: notes what is decorated, and makes CUDA seem to
be present until it is used, as `spaces` 0.51 does."""
from pathlib import Path

import torch


def use_cuda(*args):
    raise RuntimeError("Low-level CUDA init reached.")


def accelerator(check_available=False):
    return torch.device("cuda") if torch.cuda.is_available() or not check_available else None


torch.cuda.is_available = lambda: True
torch.accelerator.current_accelerator = accelerator
torch.accelerator.current_stream = use_cuda
torch.cuda._lazy_init = use_cuda


def GPU(task=None, *, duration=60):
    def decorate(function):
        with Path(__file__).with_name("decorated.txt").open("a") as file:
            file.write(f"{function.__module__}.{function.__name__} {duration}\\n")
        return function
    return decorate(task) if task else decorate


def gradio_auto_wrap(function):  # Gradio itself asks for it
    return function
'''


def tracked() -> list[Path]:
    """The files that a push takes along."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    return [PROJECT / name for name in names if name]


def front_matter() -> dict[str, str]:
    """The keys at the top of the README, each on a line of its own."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert match, "README.md must begin with the front matter"
    lines = [line.partition(":") for line in match[1].splitlines()]
    return {key: value.strip().strip("\"'") for key, _, value in lines}


def test_no_file_needs_lfs() -> None:
    files = [path for path in tracked() if path.is_file()]
    assert len(files) > 50
    for path in files:
        assert path.stat().st_size < 10 * MEGABYTE, path
        assert not path.is_symlink(), path
        with path.open("rb") as file:
            assert not file.read(40).startswith(b"version https://git-lfs"), path
    assert not (PROJECT / ".gitattributes").exists()


def test_the_front_matter_is_complete() -> None:
    matter = front_matter()
    assert matter["sdk"] == "gradio"
    assert matter["sdk_version"] == requirements("requirements.txt")["gradio"]
    assert matter["python_version"] in ("3.11", "3.12", "3.13")
    assert (PROJECT / matter["app_file"]).is_file()
    assert matter["license"] == "apache-2.0"
    assert "Apache License" in (PROJECT / "LICENSE").read_text(encoding="utf-8")
    assert {matter["colorFrom"], matter["colorTo"]} <= COLOURS
    assert 0 < len(matter["short_description"]) <= 60
    assert matter["suggested_hardware"] == "cpu-basic"
    assert matter["title"] and matter["emoji"]
    assert re.fullmatch(r"\[[\w-]+(, [\w-]+)*\]", matter["tags"])


def test_the_caps_fit_two_cores_and_sixteen_gigabytes() -> None:
    """Two runs at their largest, all that is kept for visitors, and room for the rest."""
    limits = Limits(memory_mb=16_000 // 4)  # the share that `memory_share_mb` takes there
    assert 2 * limits.run_mb + limits.memory_mb < 16_000 / 2
    assert limits.waiting_in_all * limits.upload_mb < 16_000 / 4


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What a Space gets: the last commit, without LFS."""
    folder = tmp_path_factory.mktemp("space") / "app"
    environment = {**os.environ, "GIT_LFS_SKIP_SMUDGE": "1"}
    command = ["git", "clone", "--quiet", "--depth", "1", PROJECT.as_uri(), str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return folder


class Space:
    """The app in a clone, under a Space's variables."""

    def __init__(self, clone: Path, home: Path, **variables: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        passed_on = ("PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
        environment = {name: os.environ[name] for name in passed_on if name in os.environ}
        home.mkdir(exist_ok=True)
        self.log = home / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUNNER],
                cwd=clone,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **environment,
                    "HOME": str(home),
                    "SYSTEM": "spaces",
                    "SPACE_ID": "someone/lora-lab",
                    "SPACE_HOST": "someone-lora-lab.hf.space",
                    "GRADIO_SERVER_NAME": "127.0.0.1",
                    "GRADIO_SERVER_PORT": str(port),
                    "HF_HUB_OFFLINE": "1",
                    **variables,
                },
            )

    def wait(self, seconds: float = 240) -> None:
        """Until the page is served."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(self.address, timeout=10) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("The Space did not start:\n" + self.log.read_text())

    def end(self) -> int:
        """As a Space ends: SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def _answers(space: Space) -> None:
    client = Client(space.address, verbose=False)
    counted = client.predict(rank=4, api_name="/count_parameters")
    assert 0 < counted["trainable"] < counted["total"]
    run = client.predict(steps=2, batch_size=2, rank=1, api_name="/fine_tune")
    *_, last = client.submit(run, api_name="/watch")
    assert last["state"] == "finished", last


def test_on_a_cpu_space(clone, tmp_path) -> None:
    """From the clone: starts, trains, and ends on SIGTERM; opens no browser and no other port."""
    space = Space(clone, tmp_path / "home")
    try:
        space.wait()
        _answers(space)
    finally:
        status = space.end()
    assert status == 0, space.log.read_text()
    # Gradio's own thread for hot reloading misses the `spaces` package, which real Spaces have.
    assert not re.search(r'File ".*(lora_core|app\.py)', space.log.read_text())


def test_on_zero_gpu(clone, tmp_path) -> None:
    """With a small `spaces` of our own: something is decorated, and training stays on the CPU."""
    package = tmp_path / "site" / "spaces"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_SPACES)
    space = Space(
        clone, tmp_path / "home", SPACES_ZERO_GPU="true", PYTHONPATH=str(tmp_path / "site")
    )
    try:
        space.wait()
        _answers(space)
    finally:
        status = space.end()
    assert status == 0, space.log.read_text()
    decorated = (package / "decorated.txt").read_text().split()
    assert decorated == ["lora_core.serving.zero_gpu.device_name", "1"]


def test_elsewhere_spaces_is_not_imported() -> None:
    program = textwrap.dedent(
        """
        import os, sys
        os.environ.pop("SPACES_ZERO_GPU", None)
        from lora_core.serving.zero_gpu import prepare_zero_gpu
        assert prepare_zero_gpu() is False
        assert "spaces" not in sys.modules and "LORA_LAB_DEVICE" not in os.environ
        os.environ["SPACES_ZERO_GPU"] = "true"
        try:
            prepare_zero_gpu()
        except ImportError as error:
            assert error.name == "spaces"
        assert os.environ["LORA_LAB_DEVICE"] == "cpu"
        """
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LORA_LAB_")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
