"""The feature cache: hit, miss on any change, damage found and repaired, no folder, many processes."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.features import cache
from evaluation.features.cache import cache_key, cached_features
from evaluation.features.extractors import FeatureExtractor, Features, load_extractor
from evaluation.features.network import FeatureNetwork, Seen
from evaluation.features.pixels import pixel_features

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), np.uint8)


class Means(FeatureNetwork):
    """A network without a head: the mean of every row."""

    num_features = 8

    def look(self, images: torch.Tensor) -> Seen:
        return Seen(images.float().mean(3).flatten(1), None)

    def takes(self) -> tuple[str, str, str]:
        return "1", "8", "W"


class Refuses(Means):
    """One that must not be asked for more than its own example."""

    def look(self, images: torch.Tensor) -> Seen:
        if len(images) == 1:
            return super().look(images)
        raise AssertionError("looked at images that are in the cache")


def same(a: Features, b: Features) -> bool:
    """Whether two results are the same, bit for bit."""
    return all(
        x is y is None or (x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y))
        for x, y in zip(a, b, strict=True)
    )


def test_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    for images in (IMAGES, torch.from_numpy(IMAGES)):  # what is asked for, not how it is held, is the key
        first = cached_features(FeatureExtractor("means", "", Means()), images, folder=tmp_path)
    again = cached_features(FeatureExtractor("means", "", Refuses()), IMAGES, folder=tmp_path)
    assert same(first, again) and again.logits is None and len(list(tmp_path.iterdir())) == 1


def test_classifiers_keep_all_three(tmp_path: Path) -> None:
    extractor = load_extractor("digits")
    cached_features(extractor, IMAGES, folder=tmp_path)
    assert same(cached_features(extractor, IMAGES, folder=tmp_path), extractor.extract(IMAGES))


def test_key_holds_everything_that_matters() -> None:
    changed, other = IMAGES.copy(), load_extractor("digits")
    changed.flat[-1] ^= 1
    keys = [cache_key(other, x) for x in (IMAGES, changed, IMAGES.reshape(5, 8, 1, 8), IMAGES[:4])]
    keys += [cache_key(FeatureExtractor(n, h, Means()), IMAGES) for n, h in (("a", "1"), ("a", "2"), ("b", "1"))]
    resized, wide = FeatureExtractor("a", "1", Means()), load_extractor("digits")
    resized.network.resize = "9x9 bilinear"
    wide.dtype = "float64"
    keys += [cache_key(resized, IMAGES), cache_key(wide, IMAGES)]
    assert len(set(keys)) == len(keys)
    assert cache_key(load_extractor("digits"), np.asfortranarray(IMAGES)) == keys[0]


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAGON_CACHE", str(tmp_path))
    cached_features(load_extractor("digits"), IMAGES)
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".npz"]


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    extractor = load_extractor("digits")
    expected = cached_features(extractor, IMAGES, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    swapped = arrays | {"features": arrays["features"][::-1]}  # a well-formed file with another content
    np.savez(path.with_suffix(".swapped.npz"), **swapped)
    other = path.with_suffix(".swapped.npz").read_bytes()
    path.with_suffix(".swapped.npz").unlink()
    for damaged in (b"", b"x", sound[:-1], sound[: len(sound) // 2], other):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="are damaged and are computed again") as caught:
            assert same(cached_features(extractor, IMAGES, folder=tmp_path), expected)
        assert len(caught) == 1 and str(path) in str(caught[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # repaired: the next time nothing is said
            assert same(cached_features(extractor, IMAGES, folder=tmp_path), expected)


def test_no_flipped_bit_changes_a_result(tmp_path: Path) -> None:
    extractor = load_extractor("digits")
    expected = cached_features(extractor, IMAGES, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    found = 0
    for place in range(0, len(sound), 23):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert same(cached_features(extractor, IMAGES, folder=tmp_path), expected)
        found += len(caught)
    assert found > 0.5 * len(sound) / 23  # a time stamp in the zip may be flipped unseen, an array may not


def test_works_without_a_folder_to_write_to(tmp_path: Path) -> None:
    extractor = load_extractor("digits")
    (tmp_path / "file").write_text("in the way")
    expected = extractor.extract(IMAGES)
    assert same(cached_features(extractor, IMAGES, folder=tmp_path / "file"), expected)
    assert same(cached_features(extractor, IMAGES, folder=tmp_path / "file" / "below"), expected)


def _look_often(folder: Path, seed: int) -> int:
    warnings.simplefilter("error")
    extractor = FeatureExtractor("means", "", Means())
    order = np.random.default_rng(seed).integers(0, 3, 60, np.uint8)
    for kind in order:
        images = IMAGES ^ np.uint8(kind)
        if seed == 0:
            for path in folder.glob("*.npz"):
                path.unlink(missing_ok=True)  # so that all write all the time
        if not same(cached_features(extractor, images, folder=folder), extractor.extract(images)):
            return 0
    return len(order)


def test_a_file_that_goes_away_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may remove a file at any moment, also right after it has been seen."""
    extractor, looked = FeatureExtractor("means", "", Means()), []
    cached_features(extractor, IMAGES, folder=tmp_path)
    read = cache.read_npz

    def too_late(path: Path) -> dict[str, np.ndarray]:
        looked.append(path)
        path.unlink()
        return read(path)

    monkeypatch.setattr(cache, "read_npz", too_late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(cached_features(extractor, IMAGES, folder=tmp_path), extractor.extract(IMAGES))
    assert len(looked) == 1 and looked[0].exists()


def test_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_look_often, [(tmp_path, 0), (tmp_path, 1)]) == [60, 60]
    assert not list(tmp_path.glob(".*.tmp"))


def test_pixel_features() -> None:
    images = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2) * 11
    features = pixel_features(images)
    assert features.shape == (2, 12) and features.dtype == np.float32
    np.testing.assert_array_equal(features, (images.reshape(2, 12) / 255).astype(np.float32))
    assert pixel_features(np.full((1, 1, 1, 1), 255, np.uint8)) == 1
    for wrong in (images[0], images.astype(np.float32)):
        with pytest.raises(ValueError, match=r"images must be uint8 \(N, C, H, W\), not"):
            pixel_features(wrong)
