"""The formulas that are broken, one at a time, and the checks that must notice."""

from __future__ import annotations

from tests.mutations.base import METRICS, Mutation
from tests.mutations.errors import ERRORS

DISTANCES = (
    Mutation(
        "the coupling counts once", f"{METRICS}/frechet.py", "+ traces - 2 * coupling", "+ traces - coupling",
        ("FD of diagonal Gaussians",),
    ),
    Mutation(
        "the means do not count", f"{METRICS}/frechet.py", "float(difference @ difference) + traces", "traces",
        ("FD of diagonal Gaussians",),
    ),
    Mutation(
        "samples are divided by n", f"{METRICS}/frechet.py", "(len(z) - 1) ** 0.5", "len(z) ** 0.5",
        ("FD by samples and by statistics",),
    ),
    Mutation(
        "the factor is not transposed", f"{METRICS}/frechet.py", "factor.T @ covariances @ factor",
        "factor @ covariances @ factor", ("FD replicates of the rows left",),
    ),
    Mutation(
        "the pencil is that of a quotient", f"{METRICS}/frechet.py", "type=2", "type=1",
        ("FD of rotated Gaussians", "FD vs torch-fidelity"),
    ),
    Mutation(
        "the covariance is divided by n", f"{METRICS}/statistics.py", "self.scatter / (self.n - 1)",
        "self.scatter / self.n", ("FD statistics merge",),
    ),
    Mutation(
        "merging forgets the shift of the means", f"{METRICS}/statistics.py",
        "other.scatter + np.outer(shift, shift) * (self.n * other.n / n)", "other.scatter", ("FD statistics merge",),
    ),
    Mutation(
        "the line runs against n instead of 1 / n", f"{METRICS}/frechet_infinity.py",
        "inverse_n = groups / np.arange(fewest, groups + 1)", "inverse_n = np.arange(fewest, groups + 1) / groups",
        ("FD infinity without bias",),
    ),
    Mutation(
        "the real samples meet themselves", f"{METRICS}/kernel.py", ".sum(1) / (m * (m - 1))", ".sum(1) / (m * m)",
        ("KD pair by pair",),
    ),
    Mutation(
        "the kernel lacks its one", f"{METRICS}/kernel.py", "    base += 1\n", "", ("KD pair by pair",),
    ),
    Mutation(
        "subsets are drawn with replacement", f"{METRICS}/kernel_subsets.py",
        "second = y[random.choice(len(y), size, replace=False)]",
        "second = y[random.choice(len(y), size, replace=True)]", ("KID vs torch-fidelity",),
    ),
    Mutation(
        "the Gaussian kernel lacks its 2", f"{METRICS}/cmmd.py", "(-2 * sigma**2)", "(-(sigma**2))", ("CMMD scale",),
    ),
    Mutation(
        "embeddings keep their lengths", f"{METRICS}/cmmd.py", "    return x / norms", "    return x",
        ("CMMD pair by pair",),
    ),
    Mutation(
        "the worst class is the best", f"{METRICS}/per_class.py", "max(values), distances", "min(values), distances",
        ("FD per class",),
    ),
    Mutation(
        "Inception's distance loses its name", f"{METRICS}/driver.py", "return INCEPTION_NAMES.get(key, key)",
        "return key", ("fid is Inception's alone",),
    ),
)

MANIFOLDS = (
    Mutation(
        "the border is outside", f"{METRICS}/precision_recall.py", "distances <= x_radii[rows, None]",
        "distances < x_radii[rows, None]", ("precision at the border of a ball",),
    ),
    Mutation(
        "recall uses the real radii", f"{METRICS}/precision_recall.py", "(distances <= y_radii)",
        "(distances <= x_radii[rows, None])", ("precision, recall vs torch-fidelity",),
    ),
    Mutation(
        "the ball is closed", f"{METRICS}/density_coverage.py", "distances < radii[rows, None]",
        "distances <= radii[rows, None]", ("density of a set against itself",),
    ),
    Mutation(
        "density forgets k", f"{METRICS}/density_coverage.py", "inside.sum() / (k * len(y))", "inside.sum() / len(y)",
        ("density, coverage vs prdc",),
    ),
    Mutation(
        "expected coverage counts one too many", f"{METRICS}/density_coverage.py", "np.arange(1, k + 1)",
        "np.arange(1, k + 2)", ("expected coverage by counting",),
    ),
    Mutation(
        "a sample is its own neighbour", f"{METRICS}/neighbours.py", "distances[:, k]  #", "distances[:, k - 1]  #",
        ("precision, recall vs torch-fidelity", "density, coverage vs prdc"),
    ),
    Mutation(
        "the divergence is turned round", f"{METRICS}/inception_score.py", "rel_entr(p, p.mean(0))",
        "rel_entr(p.mean(0), p)", ("IS vs torch-fidelity",),
    ),
    Mutation(
        "the entropy has another base", f"{METRICS}/vendi.py", "np.log(values)", "np.log2(values)",
        ("Vendi score of orthogonal rows",),
    ),
    Mutation(
        "classes disagree", f"{METRICS}/class_agreement.py", "(seen == asked)", "(seen != asked)", ("class agreement",),
    ),
)

MEMORIZATION = (
    Mutation(
        "authentic samples are the near ones", "evaluation/memorization.py", "found.distances > spacing[place]",
        "found.distances < spacing[place]", ("AuthPct of copies",),
    ),
    Mutation(
        "a training sample is its own neighbour", "evaluation/memorization.py", "nearest(t[hit], t, skip=hit)",
        "nearest(t[hit], t)", ("AuthPct without copying, on a line",),
    ),
    Mutation(
        "cells are averaged, not standardised", "evaluation/memorization.py",
        "weights @ scores / np.linalg.norm(weights)", "weights @ scores / weights.sum()",
        ("C_T without copying: spread",),
    ),
    Mutation(
        "the rank sum is not centred", "evaluation/memorization.py", "(u - m * n / 2)", "(u - m * n / 3)",
        ("C_T without copying: mean",),
    ),
    Mutation(
        "the whole training set against the held-out one", "evaluation/memorization.py",
        "nearest(f, t[rows]).distances.mean()", "nearest(f, t).distances.mean()", ("memorisation gap without copying",),
    ),
)

INTERVALS = (
    Mutation(
        "the jackknife forgets its factor", f"{METRICS}/intervals.py", "float((len(r) - 1) * r.var())",
        "float(r.var())", ("coverage of the FD interval", "coverage of the KD interval"),
    ),
    Mutation(
        "Student's quantile of one side", f"{METRICS}/intervals.py", "stdtrit(freedom, 0.5 + LEVEL / 2)",
        "stdtrit(freedom, 0.75)", ("coverage of the FD interval",),
    ),
    Mutation(
        "the spread of images instead of that of their mean", "evaluation/likelihood/bits.py",
        "float(values.std() / math.sqrt(n))", "float(values.std())",
        ("mean, error and parts of bits/dim", "coverage of the bits/dim interval"),
    ),
    Mutation(
        "bits without ln 2", "evaluation/likelihood/bits.py", "(dimensions * math.log(2))", "dimensions",
        ("8 bits for a uniform pixel",),
    ),
    Mutation(
        "the quantiser truncates", "models/base.py", "(x * 127.5 + 128)", "(x * 127.5 + 127.5)",
        ("levels survive the round trip", "rounding to the nearest level"),
    ),
)

GAN = (
    Mutation(
        "energy is not conserved", "models/gan/ais.py", "_log_density(state, beta) + kinetic)",
        "_log_density(state, beta))", ("AIS forward weights are unbiased", "AIS reverse weights are unbiased"),
    ),
    Mutation(
        "the prior has another variance", "models/gan/ais.py", "- 0.5 * state.z.double()", "- 0.25 * state.z.double()",
        ("AIS forward weights are unbiased", "AIS reverse weights are unbiased"),
    ),
    Mutation(
        "the sum over chains for their mean", "models/gan/ais.py",
        "log_weights.logsumexp(dim=1) - math.log(log_weights.shape[1])", "log_weights.logsumexp(dim=1)",
        ("AIS sandwich on a linear decoder",),
    ),
    Mutation(
        "classes are drawn without temperature", "models/gan/ais.py",
        "torch.softmax(float(ladder.betas[t]) * torch.stack", "torch.softmax(torch.stack",
        ("AIS with classes by quadrature",),
    ),
    Mutation(
        "half a bin too wide", "models/gan/likelihood.py", "HALF_BIN = 1 / 255", "HALF_BIN = 1 / 250",
        ("discretised Gaussian vs SciPy",),
    ),
    Mutation(
        "the outermost bins end", "models/gan/likelihood.py", "end = (images == 0) | (images == 255)",
        "end = images == 0", ("discretised Gaussian sums to 1",),
    ),
    Mutation(
        "the exact value forgets the noise", "models/gan/oracles.py", "weight @ weight.T + sigma**2 * torch.eye",
        "weight @ weight.T + sigma * torch.eye", ("linear decoder in closed form",),
    ),
)

BOUND = "models/diffusion/bound.py"
DIFFUSION = (
    Mutation(
        "the prior's logarithm changes sign", BOUND, "(ratio - 1 - math.log(ratio)", "(ratio - 1 + math.log(ratio)",
        ("prior term in closed form",),
    ),
    Mutation(
        "half of the diffusion term", BOUND, "math.log(sigma_max / sigma_min) * squared_error",
        "0.5 * math.log(sigma_max / sigma_min) * squared_error", ("VDM bound reaches the source",),
    ),
    Mutation(
        "a step without its half", BOUND, "0.5 * error * (1 / s.square()", "error * (1 / s.square()",
        ("one DDPM step in closed form", "DDPM bound reaches the source"),
    ),
    Mutation(
        "the larger variance of another scale", BOUND, "(1 + s.square()) * t.square() / (s.square()",
        "t.square() / (s.square()", ("one DDPM step in closed form",),
    ),
    Mutation(
        "drawn steps stand for themselves only", BOUND, "-total * num_steps / num_terms", "-total / num_terms",
        ("DDPM bound reaches the source",),
    ),
    Mutation(
        "the reconstruction is not normalised", BOUND, "log_p.logsumexp(-1) - chosen", "-chosen",
        ("reconstruction sums to 1",),
    ),
    Mutation(
        "v with the wrong sign", "models/diffusion/parameterisation.py", "x.double() - noise * output.double()",
        "x.double() + noise * output.double()", ("eps, x_0 and v have one bound",),
    ),
    Mutation(
        "levels weigh alike", "models/diffusion/oracles.py", "self.pmf[self.levels].double().log() - 0.5", "-0.5",
        ("best denoiser vs SciPy",),
    ),
    Mutation(
        "the divergence of the scale is forgotten", "models/diffusion/ode.py", "(1 - share - trace / dimensions)",
        "(1 - trace / dimensions)", ("PF-ODE on a correlated Gaussian",),
    ),
    Mutation(
        "the Jacobian of the scale changes sign", "models/diffusion/ode.py", "end[:, -1] - math.log(scale)",
        "end[:, -1] + math.log(scale)", ("PF-ODE on a correlated Gaussian",),
    ),
    Mutation(
        "cells of half the width", "models/diffusion/ode.py", "dimensions * math.log(2 / 255)",
        "dimensions * math.log(1 / 255)", ("PF-ODE with uniform dequantisation",),
    ),
    Mutation(
        "two probes count double", "models/diffusion/ode.py", "torch.stack(signs) / math.sqrt(probes)",
        "torch.stack(signs)", ("PF-ODE with random signs",),
    ),
    Mutation(
        "one image's step is everybody's", "models/diffusion/ode.py", "h[rows] = step * step_factor(size)",
        "h[rows] = step.max() * step_factor(size)", ("PF-ODE in any batch",),
    ),
    Mutation(
        "the decoder's cells of twice the width", "models/diffusion/chain_bound.py", "HALF_CELL = 1 / 255",
        "HALF_CELL = 2 / 255", ("decoder sums to 1",),
    ),
    Mutation(
        "terms of a chain stand for themselves only", "models/diffusion/chain_bound.py", "-total * count / num_terms",
        "-total / num_terms", ("fine chain reaches the source",),
    ),
    Mutation(
        "the last estimate counts full", "models/diffusion/samplers.py", "step / (2 * step_before)",
        "step / step_before", ("samplers of the ODE in closed form",),
    ),
)

VQVAE = (
    Mutation(
        "a bin of half the width", "models/vqvae/likelihood.py", "torch.expm1(-2 * HALF_BIN * inverse_scale)",
        "torch.expm1(-HALF_BIN * inverse_scale)", ("logistic mixture sums to 1",),
    ),
    Mutation(
        "the bright end does not reach to infinity", "models/vqvae/likelihood.py",
        "torch.where(level == 255, above, below + above + width)", "below + above + width",
        ("logistic mixture sums to 1",),
    ),
    Mutation(
        "the code is free", "models/vqvae/family.py", 'parts["code"] + parts["pixels"]', 'parts["pixels"]',
        ("two-part gap by enumeration",),
    ),
    Mutation(
        "the prior sees the code it predicts", "models/vqvae/prior.py", "self.token(indices[:, :-1])]",
        "self.token(indices[:, 1:])]", ("prior over codes sums to 1",),
    ),
    Mutation(
        "few hidden codes count for few", "models/vqvae/masked_prior.py",
        "self.num_codes * found / (self.num_codes - visible)", "found", ("any-order bound by all orders",),
    ),
    Mutation(
        "an order counts its own code as seen", "models/vqvae/masked_prior.py", "order >= t, labels",
        "order > t, labels", ("one order is unbiased",),
    ),
    Mutation(
        "it does not matter how a code was drawn", "models/vqvae/importance.py",
        "self.code + self.pixels - self.proposal", "self.code + self.pixels", ("weighted codes are unbiased",),
    ),
    Mutation(
        "weights are summed", "models/vqvae/importance.py",
        "- torch.tensor(float(len(self.code))).double().log()", "- torch.tensor(0.0)",
        ("weighted codes tighten the bound",),
    ),
)

KNOWN = (
    Mutation(
        "the mixture is a sum", "datamodules/known_density.py", "self._one_hot - np.log(self.num_modes)",
        "self._one_hot", ("known source sums to 1",),
    ),
    Mutation(
        "the noise's bins overlap", "datamodules/known_density.py", "np.log1p(-np.exp(-1 / scale))",
        "np.log1p(-np.exp(-2 / scale))", ("known source: noise vs SciPy",),
    ),
    Mutation(
        "the entropy forgets the overlap", "datamodules/known_density.py", "float(exact - unsure.mean())",
        "float(exact)", ("known source: entropy by enumeration",),
    ),
    Mutation(
        "a gap of the wrong sign", "evaluation/truth.py", "density.log_prob(bound.images) - bound.log_likelihood",
        "bound.log_likelihood - density.log_prob(bound.images)", ("independent pixels are not caught",),
    ),
    Mutation(
        "nobody is caught", "evaluation/truth.py", "gap.gap >= -CAUGHT_AT * gap.standard_error", "gap.gap >= -1",
        ("unnormalised decoder is caught", "unpaid code is caught"),
    ),
    Mutation(
        "distances of histograms count twice", "evaluation/modes.py", "density.weights).sum() / 2",
        "density.weights).sum()", ("truth about a collapsed model",),
    ),
    Mutation(
        "KL from the weights to the histogram", "evaluation/modes.py", "(q * np.log(q / w[hit]))",
        "(w[hit] * np.log(w[hit] / q))", ("mode KL by hand",),
    ),
    Mutation(
        "modes are expected once", "evaluation/modes.py", "1 - (1 - w) ** n", "n * w",
        ("modes to expect by enumeration",),
    ),
    Mutation(
        "a hundredth is off mode", "evaluation/modes.py", "OFF_MODE_SHARE = 0.001", "OFF_MODE_SHARE = 0.01",
        ("coverage of true draws vs binomial",),
    ),
)

MUTATIONS = (*DISTANCES, *MANIFOLDS, *MEMORIZATION, *INTERVALS, *ERRORS, *DIFFUSION, *GAN, *VQVAE, *KNOWN)
