"""What is asked of a sample: a start, a part to keep, given noise; steps and seeds of every sampler."""

from __future__ import annotations

import pytest
import torch

from models.base import image_generators, normal_noise, to_float
from models.diffusion.editing import Task
from models.diffusion.samplers import SAMPLERS, karras_sigmas
from tests.models.tiny import SHAPE, random_model, tiny_data

FAMILY = ["diffusion", "ddpm", "flow_matching", "consistency"]
N = 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(name: str = "diffusion", seed: int = 0, n: int = N, **options: object) -> torch.Tensor:
    return random_model(name).sample(n, generator=generator(seed), **options).images


GIVEN = tiny_data(N)[0]
LEFT = torch.zeros(SHAPE[1:], dtype=torch.bool)
LEFT[:, :4] = True


# The task.


def test_nothing_given_is_noise_and_the_network() -> None:
    task, sigmas, eps = Task(), karras_sigmas(5), torch.randn(N, *SHAPE)
    assert torch.equal(task.start(eps, sigmas), eps * float(sigmas[0]))
    assert torch.equal(task.levels(sigmas, 1.0), sigmas)
    assert task.denoiser(karras_sigmas) is karras_sigmas and task.finish(eps) is eps


@pytest.mark.parametrize(
    ("strength", "steps"), [(1.0, 10), (0.5, 5), (0.34, 3), (0.3, 3), (0.06, 1), (0.001, 1), (0.99, 10)]
)
def test_strength_is_the_share_of_the_steps_that_are_left(strength: float, steps: int) -> None:
    sigmas = karras_sigmas(10)
    assert torch.equal(Task(GIVEN).levels(sigmas, strength), sigmas[10 - steps :])


def test_a_start_is_the_picture_under_noise() -> None:
    task, sigmas, eps = Task(to_float(GIVEN)), karras_sigmas(10)[6:], torch.randn(N, *SHAPE)
    torch.testing.assert_close(task.start(eps, sigmas), to_float(GIVEN) + float(sigmas[0]) * eps)
    assert task.finish(eps) is eps


def test_what_is_kept_is_put_back_at_the_end() -> None:
    """Float by float: a sampler's last step may have rounded it."""
    given, x = to_float(GIVEN), torch.randn(N, *SHAPE)
    found = Task(given, LEFT).finish(x)
    assert torch.equal(found[..., LEFT], given[..., LEFT]) and torch.equal(found[..., ~LEFT], x[..., ~LEFT])


# Images that are given.


def test_the_weaker_the_closer_to_the_picture() -> None:
    distances = []
    for strength in (0.01, 0.4, 0.7, 1.0):
        found = images(num_steps=200, image=GIVEN, strength=strength)
        distances.append(float((found.float() - GIVEN.float()).abs().mean()))
    assert distances[0] < 1 and sorted(distances) == distances and distances[-1] > 20


@pytest.mark.parametrize("name", FAMILY)
def test_a_share_of_the_walk_costs_a_share_of_the_evaluations(name: str) -> None:
    model = random_model(name)
    options = {"image": GIVEN, "num_steps": 10, "sampler": "dpmpp_2m", "strength": 0.4, "trajectory": True}
    samples = model.sample(N, generator=generator(0), **options)
    assert samples.nfe == 4 and samples.trajectory.shape == (5, N, *SHAPE)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", FAMILY)
def test_a_mask_keeps_pixels_bit_by_bit(name: str, sampler: str) -> None:
    found = images(name, image=GIVEN, mask=LEFT, sampler=sampler, num_steps=4)
    assert torch.equal(found[..., LEFT], GIVEN[..., LEFT])
    assert not torch.equal(found[..., ~LEFT], GIVEN[..., ~LEFT])


def test_all_levels_survive_being_kept() -> None:
    given = torch.arange(256, dtype=torch.uint8).reshape(N, *SHAPE)
    everything = torch.ones(SHAPE[1:], dtype=torch.bool)
    assert torch.equal(images(image=given, mask=everything), given)


def test_the_rest_follows_from_what_is_kept() -> None:
    options = {"mask": LEFT, "num_steps": 8}
    one, other = images(image=GIVEN, **options), images(image=GIVEN.roll(1, 0), **options)
    assert not torch.equal(one[..., ~LEFT], other[..., ~LEFT]), "the network sees the part that is kept"
    hidden = torch.where(LEFT, GIVEN, 255 - GIVEN)  # the same part is kept, the rest of the picture is another
    difference = images(image=hidden, **options).int() - one.int()
    assert int(difference.abs().max()) > 0, "the walk starts from the whole picture and noise"


def test_a_mask_for_every_image() -> None:
    mask = torch.rand(N, 1, 8, 8, generator=generator(3)) < 0.5
    found = images(image=GIVEN, mask=mask)
    assert torch.equal(found[mask], GIVEN[mask]) and not torch.equal(found[~mask], GIVEN[~mask])


NOISE = torch.randn(N, *SHAPE, generator=generator(7))
REFUSED = [
    ({"strength": 0.5}, "strength below 1 needs an image to start from, without a mask"),
    ({"strength": 0.5, "image": GIVEN, "mask": LEFT}, "strength below 1 needs an image to start from"),
    ({"strength": 0.0, "image": GIVEN}, r"strength must lie in \(0, 1\], not 0\.0"),
    ({"strength": 1.01, "image": GIVEN}, r"strength must lie in \(0, 1\]"),
    ({"strength": float("nan"), "image": GIVEN}, r"strength must lie in \(0, 1\]"),
    ({"mask": LEFT}, "a mask needs the image whose pixels it keeps"),
    ({"image": GIVEN, "mask": LEFT.float()}, r"mask must be bool \(8, 8\) or \(4, 1, 8, 8\), not torch\.float32"),
    ({"image": GIVEN, "mask": LEFT[:, :4]}, r"mask must be bool .*, not torch\.bool \(8, 4\)"),
    ({"image": GIVEN, "mask": LEFT.expand(3, 1, 8, 8)}, r"mask must be bool .*, not torch\.bool \(3, 1, 8, 8\)"),
    ({"image": GIVEN, "mask": LEFT.expand(N, 2, 8, 8)}, r"mask must be bool .*, not torch\.bool \(4, 2, 8, 8\)"),
    ({"image": GIVEN[:3]}, "as many images as samples, 4, not 3"),
    ({"image": to_float(GIVEN)}, r"images must be uint8 \(N, 1x8x8\)"),
    ({"image": GIVEN[..., :4]}, r"images must be uint8 \(N, 1x8x8\)"),
    ({"noise": NOISE.double()}, r"noise must be float32 \(4, 1, 8, 8\), not torch\.float64"),
    ({"noise": NOISE[:2]}, r"noise must be float32 \(4, 1, 8, 8\), not torch\.float32 \(2, 1, 8, 8\)"),
    ({"num_steps": 0}, r"num_steps must lie in 1\.\.1000, not 0"),
    ({"num_steps": 1001}, r"num_steps must lie in 1\.\.1000, not 1001"),
    ({"sampler": "plms"}, "sampler must be one of"),
    ({"sampler": "ddim", "eta": 1.5}, r"eta must lie in \[0, 1\], not 1\.5"),
    ({"sampler": "ddim", "eta": float("nan")}, r"eta must lie in \[0, 1\], not nan"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_what_does_not_go_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        images(**options)


# Noise, seeds, steps.


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_that_is_given_takes_the_place_of_the_start_only(sampler: str) -> None:
    options = {"sampler": sampler, "num_steps": 4}
    own = normal_noise(SHAPE, image_generators(N, generator(0)))
    assert torch.equal(images(noise=own, **options), images(**options)), "what is drawn later stays the same"
    assert not torch.equal(images(noise=NOISE, **options), images(**options))


def test_the_start_alone_decides_where_no_noise_is_drawn() -> None:
    for sampler in ("heun", "euler", "ddim", "dpmpp_2m"):
        one, other = (images(seed=k, noise=NOISE, sampler=sampler) for k in (0, 1))
        assert torch.equal(one, other)
    one, other = (images(seed=k, noise=NOISE, sampler="ddim", eta=0.5) for k in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "ddim, eta 1"])
@pytest.mark.parametrize("name", FAMILY)
def test_an_image_depends_on_the_seed_and_its_place_only(name: str, sampler: str) -> None:
    """Six at once, or two and four."""
    model, labels = random_model(name), torch.tensor([0, 1, 2, 0, 1, 2])
    given = tiny_data(6)[0]
    options = {"sampler": sampler.partition(",")[0], "num_steps": 4, "guidance_scale": 2.0, "mask": LEFT}
    options |= {"eta": 1.0} if "eta" in sampler else {}
    together = model.sample(6, condition=labels, generator=generator(0), image=given, **options).images
    source = generator(0)
    apart = [
        model.sample(len(part), condition=part, generator=source, image=image, **options).images
        for part, image in zip(labels.split([2, 4]), given.split([2, 4]), strict=True)
    ]
    assert int((together.int() - torch.cat(apart).int()).abs().max()) <= 1
    assert len({bytes(image.numpy().tobytes()) for image in together}) == 6


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", FAMILY)
def test_one_and_two_steps(name: str, sampler: str) -> None:
    for num_steps in (1, 2):
        samples = random_model(name).sample(2, generator=generator(0), sampler=sampler, num_steps=num_steps)
        assert samples.images.dtype == torch.uint8 and 1 <= samples.nfe <= 3


def test_a_thousand_steps_are_the_most() -> None:
    model = random_model("ddpm")
    samples = model.sample(1, generator=generator(0), num_steps=1000, sampler="ancestral")
    assert samples.nfe == 1000


def test_eta_belongs_to_ddim() -> None:
    shown = [images(sampler="ddim", eta=eta, num_steps=6) for eta in (0.0, 0.5, 1.0)]
    assert torch.equal(shown[0], images(sampler="euler", num_steps=6))
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    walked = images(sampler="ancestral", num_steps=6)
    assert int((shown[2].int() - walked.int()).abs().max()) <= 1
