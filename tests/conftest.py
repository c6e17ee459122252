"""What several tests share: the real files beside the project, and a scheduler that refuses."""

import signal
from pathlib import Path

import dask
import pytest
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

settings.register_profile("smgrid", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("smgrid")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started behind a shell's &: what tests start would never be stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared():
    """Folder of real files; their licences forbid passing them on, so they live beside the project, not in it."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real files (../shared/data) is not beside this checkout")
    return SHARED


@pytest.fixture
def no_compute():
    """Lazy is proved: any computation inside this fixture fails."""

    def refuse(*_, **__):
        raise AssertionError("this step must stay lazy")

    with dask.config.set(scheduler=refuse):
        yield
