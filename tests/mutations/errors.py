"""Errors, intervals, parts and units: formulas beside the numbers that are compared."""

from __future__ import annotations

from tests.mutations.base import METRICS, Mutation

ERRORS = (
    Mutation(
        "means are added", f"{METRICS}/frechet.py", "_assemble(m - mean,", "_assemble(m + mean,",
        ("FD replicates of the rows left",),
    ),
    Mutation(
        "a singular covariance has no factor", f"{METRICS}/frechet.py", "vectors * np.sqrt(np.maximum(values, 0.0))",
        "vectors * np.maximum(values, 0.0)", ("FD of singular covariances",),
    ),
    Mutation(
        "the line ends at the samples there are", f"{METRICS}/frechet_infinity.py",
        "np.column_stack((np.ones(points), inverse_n))", "np.column_stack((np.ones(points), inverse_n - 1))",
        ("FD infinity is a straight line",),
    ),
    Mutation(
        "subsets add more than they do", f"{METRICS}/frechet_infinity.py", "(ratios - 1)", "(ratios + 1)",
        ("FD infinity: its error",),
    ),
    Mutation(
        "the variance of the extrapolation for its error", f"{METRICS}/frechet_infinity.py", "float(variance**0.5)",
        "float(variance**0.75)", ("FD infinity: its error", "coverage of the FD infinity interval"),
    ),
    Mutation(
        "one side's bias against the other's", f"{METRICS}/kernel.py",
        "_self_bias(sums.real, sums.self_real, sums.sizes_real) + _self_bias(",
        "_self_bias(sums.real, sums.self_real, sums.sizes_real) - _self_bias(", ("KD replicates of the rows left",),
    ),
    Mutation(
        "the order of the entropy changes sign", f"{METRICS}/vendi.py", "(1 / (1 - q))", "(1 / (1 + q))",
        ("Vendi score of other orders",),
    ),
    Mutation(
        "a share varies more with more trials", f"{METRICS}/class_agreement.py", "share * (1 - share) / n",
        "share * (1 - share) * n", ("Wilson intervals vs SciPy",),
    ),
    Mutation(
        "Wilson's centre forgets its half", f"{METRICS}/class_agreement.py", "z * z / (2 * n)) / shrink",
        "z * z / n) / shrink", ("Wilson intervals vs SciPy",),
    ),
    Mutation(
        "the first-order interval has one end", f"{METRICS}/intervals.py", "return estimate - t * variance**0.5,",
        "return estimate + t * variance**0.5,", ("jackknife interval by Welch",),
    ),
    Mutation(
        "other degrees of freedom", f"{METRICS}/intervals.py", "v**2 / (len(r) - 1)", "v**2 / (len(r) + 1)",
        ("jackknife interval by Welch",),
    ),
    Mutation(
        "the score interval forgets its offset", f"{METRICS}/intervals.py", "+ slope * offset - t * t", "- t * t",
        ("score interval solves its equation",),
    ),
    Mutation(
        "pairs of both sides do not count", f"{METRICS}/intervals.py", "within + float(across.var()",
        "within + 0 * float(across.var()", ("second order of a quadratic form",),
    ),
    Mutation(
        "ties add to the variance", "evaluation/memorization.py", "(ties**3 - ties)", "(ties**3 + ties)",
        ("rank test vs SciPy",),
    ),
    Mutation(
        "the interval of a mean instead of one more subset's", "evaluation/memorization.py",
        "* (1 + 1 / subsets)) ** 0.5", "/ subsets) ** 0.5", ("coverage of the memorisation interval",),
    ),
    Mutation(
        "Student's freedom is too large", "evaluation/likelihood/bits.py", "stdtrit(n - 1, 0.975)",
        "stdtrit(n + 1, 0.975)", ("mean, error and parts of bits/dim",),
    ),
    Mutation(
        "the entropy's error is in other units", "evaluation/truth.py", "entropy_error / nats_per_bit",
        "entropy_error * nats_per_bit", ("truth is in bits per dimension",),
    ),
    Mutation(
        "chance may do anything", "evaluation/truth.py", "CHANCE_NATS / (CAUGHT_AT * n * nats_per_bit)",
        "CHANCE_NATS / (n * nats_per_bit)", ("a ratio of 1,000 is evidence",),
    ),
    Mutation(
        "digits move across the border", "datamodules/known_density.py", "(0, 0), (1, 1), (1, 1))",
        "(0, 0), (2, 1), (1, 1))", ("known_density: templates are moved digits",),
    ),
    Mutation(
        "the first step's noise is the reconstruction's", "models/diffusion/bound.py",
        "-reconstruction_term(images, eps, float(sigmas[0]))", "-reconstruction_term(images, eps, float(sigmas[1]))",
        ("prior and reconstruction alone",),
    ),
    Mutation(
        "v is multiplied by the noise", "models/diffusion/parameterisation.py", "- x_0.double()) / noise",
        "- x_0.double()) * noise", ("eps, x_0 and v by definition",),
    ),
    Mutation(
        "the noise level of another signal", "models/diffusion/parameterisation.py", "((1 - alpha_bar) / alpha_bar)",
        "((1 - alpha_bar) * alpha_bar)", ("eps, x_0 and v by definition",),
    ),
    Mutation(
        "the error of another pair", "models/diffusion/ode.py", "-17253 / 339200", "17253 / 339200",
        ("PF-ODE: Dormand and Prince's numbers",),
    ),
    Mutation(
        "the density's error hides among the pixels'", "models/diffusion/ode.py",
        "torch.maximum(scaled[:, :-1].square().mean(1).sqrt(), scaled[:, -1].abs())", "scaled.square().mean(1).sqrt()",
        ("PF-ODE: error and length of steps",),
    ),
    Mutation(
        "rows of the block before", "models/gan/likelihood.py", "torch.arange(start, start + IMAGES_AT_ONCE)",
        "torch.arange(0, IMAGES_AT_ONCE)", ("images in blocks",),
    ),
    Mutation(
        "the worst sigma is chosen", "models/gan/likelihood.py", "Calibration(min(sweep,", "Calibration(max(sweep,",
        ("calibration by quadrature",),
    ),
    Mutation(
        "a momentum of whole steps", "models/gan/ais.py", "start + step / 2 * (beta", "start + step * (beta",
        ("leapfrog conserves energy",),
    ),
    Mutation(
        "step sizes are interpolated without logarithms", "models/gan/ais.py", "logs = ladder.step_sizes.log()",
        "logs = ladder.step_sizes", ("temperatures and stretched ladders",),
    ),
    Mutation(
        "the check of the masses adds one", "models/vqvae/likelihood.py", "(mass - 1).abs()", "(mass + 1).abs()",
        ("logistic mixture in the tails",),
    ),
)
