import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrors.blobs import BlobStore
from mirrors.bundle import BundledSnapshot, Composition, Recipe, Signer, compose
from mirrors.bundle.contents import Crossing
from tests.bundle import samples
from tests.unpacking import unpack as unpack_tar


class Maker:
    """Composes bundles and unpacks them with the system's idea of a tar."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = BlobStore(root / "store")

    def recipe(
        self,
        snapshots: list[BundledSnapshot] | None = None,
        *,
        scripts: bool = True,
        crossing: Crossing | None = None,
        signer: Signer | None = None,
    ) -> Recipe:
        return compose(
            "k3j9x2a1b7",
            samples.NOW,
            "0.1.0",
            snapshots or samples.everything(self.store),
            self.store,
            scripts=scripts,
            crossing=crossing,
            signer=signer,
        )

    def composition(self, snapshots: list[BundledSnapshot] | None = None, **how) -> Composition:
        return Composition(self.recipe(snapshots, **how), self.store)

    def unpacked(self, snapshots: list[BundledSnapshot] | None = None, **how) -> Path:
        composition = self.composition(snapshots, **how)
        target = self.root / "carried over"
        with tarfile.open(fileobj=io.BytesIO(b"".join(composition.read()))) as archive:
            unpack_tar(archive, target)
        return target / composition.recipe.folder


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture(scope="session")
def _unpacked_once(tmp_path_factory) -> dict[str, Path]:
    return {}


@pytest.fixture
def copied(tmp_path_factory, tmp_path: Path, _unpacked_once: dict[str, Path]) -> Callable[..., Path]:
    """copied("six", lambda maker: maker.unpacked(…)) -> an unpacked bundle of this test's own, composed by the first
    test that asks for one of that name."""

    def copy(name: str, unpack: Callable[[Maker], Path]) -> Path:
        if name not in _unpacked_once:
            _unpacked_once[name] = unpack(Maker(tmp_path_factory.mktemp("unpacked")))
        source = _unpacked_once[name]
        return shutil.copytree(source, tmp_path / source.parent.name / source.name)

    return copy
